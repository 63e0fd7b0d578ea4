"""CoAP (RFC 7252) over DTLS for both ends.

The one place that knows how aiocoap is put together: each DTLS session gets a message layer and a
token layer of its own, so that message IDs, tokens and blocks are boxed to the session (RFC 7252
section 9.1) and go with it.
"""
