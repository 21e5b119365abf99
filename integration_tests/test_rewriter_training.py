"""From a server's answers to a fine-tuned rewriter, by the commands: collect, fit, interrupted and resumed, rewrite."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from hy_rewrite import read_pairs
from hy_weights import verify
from hyvideo_pretrain.cli import main as pretrain
from hyvideo_rewrite.cli import main as rewrite
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


class Large(BaseHTTPRequestHandler):
    """A server whose model repeats the prompt."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = json.loads(asked["messages"][-1]["content"])["prompt"]
        content = json.dumps({"short": prompt, "dense": f"{prompt} run."})
        body = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    http = ThreadingHTTPServer(("127.0.0.1", 0), Large)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    http.shutdown()
    http.server_close()


def write_small_model(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["the"], trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    )
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}assistant: "
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=template)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8192,
        eos_token_id=fast.convert_tokens_to_ids("<|end|>"),
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def test_collect_fit_resume_rewrite(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_small_model(tmp_path / "small")
    (tmp_path / "prompts.txt").write_text("".join(f"{number} foxes\n" for number in range(2, 10)))
    of_server = ["--base-url", server, "--model", "large", "--workers", "4"]
    assert rewrite(["collect", "prompts.txt", "--out", "pairs.jsonl", *of_server, "--rounds", "0"]) == 0
    assert len(read_pairs("pairs.jsonl")) == 8

    recipe = [
        "fit",
        "--config",
        "rewrite/lora",
        "--model.model",
        "small",
        "--data.held_out",
        "2",
        "--data.batch_size=2",
    ]
    recipe += ["--model.max_tokens", "8192", "--trainer.accelerator", "cpu", "--trainer.accumulate_grad_batches", "1"]
    recipe += ["--trainer.enable_progress_bar", "false"]
    assert pretrain([*recipe, "--trainer.max_steps", "2"]) == 0
    assert (tmp_path / "runs/rewrite-lora/latest/state.safetensors").stat().st_size < 200_000
    assert pretrain([*recipe, "--trainer.max_steps", "4", "--resume"]) == 0
    manifest = verify("runs/rewrite-lora/adapter")
    assert manifest["provenance"] == {"module": "RewriterTraining", "steps": 4}

    capsys.readouterr()
    tuned = ["--model", "small", "--adapter", "runs/rewrite-lora/adapter", "--device", "cpu", "--max-new-tokens", "4"]
    assert rewrite(["2 foxes", *tuned, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["by"] == "small with runs/rewrite-lora/adapter"
    assert rewrite(["evaluate", "pairs.jsonl", *tuned]) == 0
    assert "8 rewrites" in capsys.readouterr().out
