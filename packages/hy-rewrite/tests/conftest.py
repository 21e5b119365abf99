"""A language model small enough to build here, a scripted one, and a server of one's own."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hy_rewrite.dialogue import answer_text
from hy_rewrite.instructions import MODES, instruction

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
GOOD = {
    "short": "Two red foxes run through snow.",
    "dense": "Two red foxes run side by side. Snow flies up behind them.",
    "lighting": "Low sun from the left.",
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def build_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|start|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1024, special_tokens=special, initial_alphabet=alphabet)
    texts = [instruction(mode, "English", 1200) for mode in MODES]  # so that they become few tokens
    tokenizer.train_from_iterator([*texts, answer_text({})] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=TEMPLATE)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a random model with a chat template."""
    import torch  # here: most tests need none of it
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,
        bos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data *= 5  # or its frozen head could say nothing for certain
    model.save_pretrained(folder)
    return folder


class Scripted:
    """A model that says what it is told to, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, *answers):
        self.answers = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
        self.asked = []

    def answer(self, messages):
        self.asked.append(messages)
        return self.answers.pop(0)


@pytest.fixture
def scripted():
    return Scripted


@pytest.fixture
def good():
    return dict(GOOD)


def completion(content):
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}).encode()


class Server:
    """A server on this machine. `replies` are functions of the handler, one for each request, the last for the rest."""

    def __init__(self):
        self.replies, self.requests, self.headers = [], [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append(json.loads(body))
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                try:
                    reply(self)
                except OSError:  # the client has gone
                    self.close_connection = True

            def log_message(self, format, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.stopping = threading.Event()
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def says(self, content, status=200, headers=None):
        return self.sends(completion(content if isinstance(content, str) else json.dumps(content)), status, headers)

    def sends(self, body, status=200, headers=None):
        def reply(handler):
            handler.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        return reply

    def waits(self):
        return lambda handler: self.stopping.wait(20)

    def drips(self, pieces=10_000, pause=0.02, piece=b" "):
        def reply(handler):
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.end_headers()
            for _ in range(pieces):
                handler.wfile.write(piece)
                handler.wfile.flush()
                if self.stopping.wait(pause):
                    break
            handler.close_connection = True

        return reply

    def drips_headers(self):
        def reply(handler):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
            while not self.stopping.wait(0.05):
                handler.wfile.write(b"a")
                handler.wfile.flush()
            handler.close_connection = True

        return reply


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stopping.set()
    server.http.shutdown()
    server.http.server_close()
