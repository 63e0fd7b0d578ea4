"""One suite of behaviours, run over every road to the service: in process, HTTPS and CoAPS."""
