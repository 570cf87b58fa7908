"""The methods of the API, one thin module per name space, and the table that holds them all."""
