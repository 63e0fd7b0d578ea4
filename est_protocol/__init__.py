"""What both ends of EST agree on: values, codecs and the secure channel.

Nothing in this package opens a socket (the asyncio drivers in
:mod:`est_protocol.secure_channel` excepted), reads a clock or takes a policy decision.
"""
