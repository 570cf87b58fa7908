"""
The methods of the API, one thin module per name space, and the table that holds them all.

Every method is a row: name, role, params, handler, result and REST route. Dispatch, REST, the checks of params, the
OpenRPC document and the README's table are made from it.
"""

from skilld.rpc.methods import attested, daemon, factory, running, skills, tee, writing

TABLE = (
    *skills.METHODS,
    *writing.METHODS,
    *running.METHODS,
    *factory.METHODS,
    *attested.METHODS,
    *tee.METHODS,
    *daemon.METHODS,
)
