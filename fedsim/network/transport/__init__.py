"""What becomes of a transfer on its way: handshakes of TLS, losses that come in bursts, a CDN before the server."""
