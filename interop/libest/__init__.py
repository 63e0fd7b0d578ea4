"""libest's estclient, estserver and estproxy against server and client."""
