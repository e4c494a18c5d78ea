"""The file functions of mmengine, SCEPTER and easycore, under their names and with their arguments, over any of our stores."""
