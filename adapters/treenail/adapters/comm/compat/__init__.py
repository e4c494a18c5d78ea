"""The distributed functions of mmengine and SCEPTER, under their names and with their arguments, over any communicator."""
