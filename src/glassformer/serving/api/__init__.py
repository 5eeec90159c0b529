"""The HTTP API: OpenAI's endpoints and our own, one small file an endpoint. Needs the extra `serve`."""
