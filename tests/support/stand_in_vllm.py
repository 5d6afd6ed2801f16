"""A server in vLLM's place, for recipes/slurm/train_vllm.sbatch: answers /health with 503 for a while, then with 200.

python tests/support/stand_in_vllm.py --model MODEL --host HOST --port PORT --seconds SECONDS
"""

import argparse
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    flags = parser.parse_args()
    ready_at = time.monotonic() + flags.seconds

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ready = time.monotonic() >= ready_at and self.path == "/health"
            print(f"stand-in server: {self.path} {'is ready' if ready else 'is not ready'}", flush=True)
            self.send_response(200 if ready else 503)
            self.end_headers()
            self.wfile.write(flags.model.encode())

        def log_message(self, *_: object) -> None:
            pass

    HTTPServer((flags.host, flags.port), Health).serve_forever()


if __name__ == "__main__":
    main()
