"""What goes over the wire, as Wireshark's dissectors read it."""
