IMAGE_INSTALL:append:dstack = " skilld"
