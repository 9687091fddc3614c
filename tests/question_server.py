"""A chat server that writes questions about any image and answers them as their first words say.

"Seen": right with the image, wrong without. "Guessed": right with and without. "Unseen": wrong with the
image. "Refused": refused with the image while the file `refuse` is in its folder.
"""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from patience import listening
from server import ChatServer

WRITTEN = """Here are five questions:

1. **Seen: which number has image {n}?**
   - A) {n}
   - B) one more than {n}
   - C) a hundred
**Answer:** A) {n}

2. **Guessed: how many legs has a dog?**
   - A) three
   - B) four
**Answer:** B

3. **Unseen: where is it?**
   - A) here
   - B) there
**Answer:** B

4. **Refused: who is it?**
   - A) he
   - B) she
**Answer:** B

5. **Wrong: what?**
   - A) this
   - B) that
**Answer:** E"""
RIGHT = {"Guessed": "four", "Unseen": "there", "Refused": "she"}
WRONG = {"Seen": "a hundred", "Guessed": "three", "Unseen": "here", "Refused": "he"}


class QuestionServer(ChatServer):
    """The process; see `server.ChatServer`, whose rules it has none of."""

    def __init__(self, folder: Path, *, delay: float = 0.0):
        self.delay = delay
        self.folder = folder
        super().__init__(folder)

    def start(self) -> None:
        command = [sys.executable, __file__, str(self.port), str(self.folder), str(self.delay)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        listening(self.port, self._process)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = Path()
    delay = 0.0
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = next(part["text"] for part in parts if part["type"] == "text")
        image = next((part["image_url"]["url"] for part in parts if part["type"] == "image_url"), "")
        with self.lock, (self.folder / "requests.jsonl").open("a") as file:
            file.write(json.dumps({"text": text, "image": bool(image), "seed": body["seed"]}) + "\n")
        time.sleep(self.delay)
        message = {"role": "assistant", **self.reply(text, image)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        said = json.dumps({"id": "1", "choices": [choice], "usage": {}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def reply(self, text: str, image: str) -> dict[str, object]:
        if text.startswith("Look at the image"):
            return {"content": WRITTEN.format(n=len(image))}
        behaviour = text.partition(":")[0]
        if behaviour == "Refused" and image and (self.folder / "refuse").exists():
            return {"content": None, "refusal": "no"}
        if not image:
            return {"content": WRONG[behaviour] if behaviour != "Guessed" else RIGHT[behaviour]}
        if behaviour == "Unseen":
            return {"content": WRONG[behaviour]}
        return {"content": RIGHT.get(behaviour) or str(len(image))}

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    Handler.folder, Handler.delay = Path(sys.argv[2]), float(sys.argv[3])
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
