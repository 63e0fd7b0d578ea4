"""libcoap's clients against the CoAPS server."""
