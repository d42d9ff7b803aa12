"""`fit`: stages on arrays of one's own, and a directory from which a call goes on."""
