import pytest
from hy_data.errors import DataError
from hy_data.ledger import Ledger, LedgerEntry


def entry(number, reason=""):
    return LedgerEntry(source=f"{number}.mp4", start=0, stop=5, accepted=not reason, reason=reason, key=str(number))


def test_a_ledger_comes_back_from_its_file(tmp_path):
    ledger = Ledger([entry(1), entry(2, "zu kurz: 5 „Bilder“")])
    ledger.save(tmp_path / "ledger.jsonl")
    assert list(Ledger.load(tmp_path / "ledger.jsonl")) == list(ledger)


def test_the_summary_counts_reasons():
    ledger = Ledger()
    for number in range(7):
        ledger.add(entry(number, ["", "dark", "", "short", "dark", "", "dark"][number]))
    assert ledger.summary() == "7 clips: 3 accepted, 4 refused\n  3 x dark\n  1 x short"
    assert Ledger().summary() == "0 clips: 0 accepted, 0 refused"


@pytest.mark.parametrize("content", ["no json", '{"source": "a"}', '{"surprise": 1}', "[1]"])
def test_what_is_no_ledger_is_said(tmp_path, content):
    (tmp_path / "ledger.jsonl").write_text(content)
    with pytest.raises(DataError, match="is not a ledger"):
        Ledger.load(tmp_path / "ledger.jsonl")
    with pytest.raises(DataError, match="is not a ledger"):
        Ledger.load(tmp_path / "none.jsonl")
