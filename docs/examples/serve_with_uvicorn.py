import uvicorn

from est_server import est_asgi

app = est_asgi("est/est-server.toml")

if __name__ == "__main__":
    uvicorn.run(app, port=8080, proxy_headers=False, server_header=False)
