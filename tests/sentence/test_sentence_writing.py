"""Books in scripts without case, without spaces, without full stops, and in other encodings."""
# ruff: noqa: RUF001 (punctuation of other scripts resembles that of ASCII)

import codecs
import gzip

import numpy as np
import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

import sentence.data
from core.io.errors import InputError
from sentence.corpora import Faults, find_corpus
from sentence.data import encode_corpus
from sentence.text import is_wrapped, paragraphs_of, pieces_of, sentences_of
from sentence.train import main as train_main
from sentence.writing import UNSPACED, has_unspaced, join_lines
from tests.runs import failure_of, result_of

# Language: sentences of a paragraph as it is written, and the tokens of the first.
TEXTS = {
    "Chinese": ["今天天气很好。", "我们去公园散步。", "你来吗？", "他在2020年走了！"],
    "Japanese": ["今日は天気がいい。", "公園へ行きましょう。", "コーヒーは？", "飲みます！"],
    "Korean": ["오늘은 날씨가 좋습니다.", " 우리는 공원에 갑니다.", " 당신도 오나요?"],
    "Arabic": ["الطقس جميل اليوم.", " نذهب إلى الحديقة.", " هل تأتي؟", " نعم، سآتي."],
    "Hebrew": ["היום מזג האוויר יפה.", " אנחנו הולכים לפארק.", " האם אתה בא?"],
    "Hindi": ["आज मौसम अच्छा है।", " हम पार्क जाते हैं।", " क्या तुम आओगे?"],
    "Urdu": ["آج موسم اچھا ہے۔", " ہم پارک جاتے ہیں۔", " کیا تم آؤ گے؟"],
    "Thai": ["วันนี้อากาศดี", " เราไปสวนสาธารณะ", " เด็ก ๆ เล่นน้ำอยู่ที่บ้านเก่า", " มาไหม"],
    "Khmer": ["ថ្ងៃនេះអាកាសធាតុល្អ។", " យើងទៅសួន។"],
    "Burmese": ["ယနေ့ရာသီဥတုသာယာသည်။", " ပန်းခြံသို့သွားကြသည်။"],
    "Tibetan": ["དེ་རིང་གནམ་ལེགས།", " ང་ཚོ་འགྲོ།"],
    "Amharic": ["ዛሬ አየሩ ጥሩ ነው።", " ወደ መናፈሻ እንሄዳለን።"],
    "Russian": ["Сегодня хорошая погода.", " Мы идём в парк."],
}
TOKENS = {
    "Chinese": "今 天 天 气 很 好 。",
    "Japanese": "今 日 は 天 気 が い い 。",
    "Korean": "오늘은 날씨가 좋습니다 .",
    "Arabic": "الطقس جميل اليوم .",
    "Hebrew": "היום מזג האוויר יפה .",
    "Hindi": "आज मौसम अच्छा है ।",
    "Urdu": "آج موسم اچھا ہے ۔",
    "Thai": "วั น นี้ อ า ก า ศ ดี",
    "Burmese": "ယ နေ့ ရာ သီ ဥ တု သာ ယာ သ ည် ။",
    "Amharic": "ዛሬ አየሩ ጥሩ ነው ።",
    "Russian": "сегодня хорошая погода .",
}


def sentences_in(folder):
    return [list(sentences_of(lines)) for _, lines in find_corpus(f"folder:{folder}", folder).books(Faults())]


def encoded(folder, vocab_size=1000, dataset="folder", **options):
    return encode_corpus(find_corpus(f"{dataset}:{folder}", folder), vocab_size, **options)


def words_of(corpus, position):
    ids, _ = corpus.take(np.array([position]), max_tokens=100)
    return [corpus.tokenizer.id_to_token(token) for token in ids.tolist()]


@pytest.mark.parametrize("language", TEXTS)
def test_paragraphs_of_any_script_are_split_into_all_their_sentences(language):
    paragraphs = [TEXTS[language], TEXTS[language][:1], TEXTS[language][:2], TEXTS[language]]
    lines = ["".join(paragraph).strip() + "\n" for paragraph in paragraphs]
    assert list(sentences_of(lines)) == [text.strip() for paragraph in paragraphs for text in paragraph]


@pytest.mark.parametrize("language", TEXTS)
def test_one_sentence_a_line_of_any_script_stays_one(language):
    lines = [text.strip() + "\n" for text in TEXTS[language]] * 3
    assert list(sentences_of(lines)) == [line.strip() for line in lines]


@pytest.mark.parametrize("language", TOKENS)
def test_words_of_any_script_are_tokens(language, tmp_path):
    (tmp_path / "a.txt").write_text("".join(TEXTS[language]) + "\n", "utf-8")
    corpus = encoded(tmp_path)
    assert len(corpus) == len(TEXTS[language])
    assert corpus.left_out == corpus.unknown == 0
    assert words_of(corpus, 0) == TOKENS[language].split()


def test_numbers_and_latin_words_among_letters_are_whole(tmp_path):
    (tmp_path / "a.txt").write_text("他在2020年买了iPhone手机。价格是3.5万元。\n", "utf-8")
    assert words_of(encoded(tmp_path), 0) == [*"他在", "2020", *"年买了", "iphone", *"手机。"]


def test_tokenizer_of_english_is_not_changed(books):
    assert encoded(books).tokenizer.to_str().count('"Split"') == 0
    assert type(encoded(books).tokenizer.pre_tokenizer).__name__ == "Whitespace"


def test_letters_are_the_same_for_both_libraries():
    """Those of regex and of tokenizers: Unicode's properties, of which versions differ in a few rare ones."""
    text = "".join(chr(code) for code in range(0x0E00, 0xD7A4))
    split = Split(Regex(UNSPACED), "removed").pre_tokenize_str(text)
    kept = "".join(piece for piece, _ in split)
    assert not has_unspaced(kept)
    assert "한" in kept
    assert not set("ก你はク") & set(kept)


@pytest.mark.parametrize(
    ("text", "is_sentence"),
    [
        ("好。", False),
        ("你好。", True),
        ("अच्छा।", False),  # one word, whose marks are not letters
        ("بسم الله", True),
        ("نعم.", False),
        ("一二三", True),
        ("ก", False),
        ("١٢٣ ٤٥٦", False),
        ("CHAPTER IV", False),
        ("NASA在2020年说", True),
        ("* * *", False),
    ],
)
def test_pieces_that_are_not_sentences_are_named_as_such(text, is_sentence):
    assert list(pieces_of([text + "\n"])) == [(text, is_sentence)]


def test_wrapped_chinese_is_joined_without_spaces_and_its_indent_begins_a_paragraph():
    text = "".join(["他昨天在北京的公园里看见了一只很大的白猫。"] * 6)
    lines = [text[i : i + 25] + "\n" for i in range(0, len(text), 25)]
    indented = ["\u3000\u3000" + lines[0], *lines[1:]]
    assert is_wrapped(lines)
    assert list(paragraphs_of([*indented, *indented])) == [text, text]
    assert list(sentences_of(lines)) == ["他昨天在北京的公园里看见了一只很大的白猫。"] * 6


def test_lines_are_joined_as_each_script_needs():
    assert join_lines(["你好，", "世界"]) == "你好，世界"
    assert join_lines(["他说", "「好」"]) == "他说「好」"
    assert join_lines(["用 iPhone", "打电话"]) == "用 iPhone 打电话"
    assert join_lines(["สวัส", "ดี"]) == "สวัสดี"
    assert join_lines(["우리는", "공원에"]) == "우리는 공원에"
    assert join_lines(["the cold", "river"]) == "the cold river"


PLAIN = [
    "she went home",
    "he said that it was far too late for a walk",
    "we left",
    "nobody came to the old house",
]


def test_sentences_a_line_without_full_stops_are_found():
    lines = [f"{text}\n" for text in PLAIN * 10]
    assert not is_wrapped(lines)
    assert list(sentences_of(lines)) == PLAIN * 10
    headlines = [*lines, "is it over?\n"]
    assert list(sentences_of(headlines)) == [*PLAIN * 10, "is it over?"]


def test_wrapped_text_without_full_stops_is_joined():
    """As all lines are full, they are not sentences."""
    lines = ["and so it goes on and on\n", "with no end that we know\n", "of and none that we see\n"] * 5
    assert is_wrapped(lines)
    assert len(list(sentences_of(lines))) == 1


def test_lines_that_are_sentences_by_setting(tmp_path):
    """Each line that is not blank, whatever it holds."""
    lines = ["She came. He left.\n", "\n", "HELLO   WORLD\n", "ok\n", "and this one goes on\n"]
    (tmp_path / "a.txt").write_text("".join(lines))
    kept = ["She came. He left.", "HELLO WORLD", "ok", "and this one goes on"]
    assert list(sentences_of(lines, "sentences")) == kept
    corpus = encoded(tmp_path, dataset="lines")
    assert len(corpus) == 4
    assert words_of(corpus, 1) == ["hello", "world"]
    assert len(encoded(tmp_path)) == 3  # the cache of the one is not read for the other


def test_text_that_is_no_sentence_is_counted(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("CHAPTER IV\n\n27\n\nShe came. Oh! He left.\n")
    corpus = encoded(tmp_path)
    assert len(corpus) == 2
    assert corpus.left_out == 3
    (tmp_path / "b.txt").write_text("CHAPTER I\n\nCHAPTER II\n")
    assert encoded(tmp_path).left_out == 5
    assert "b.txt has 0 sentences (2 other pieces of text are not sentences)" in capsys.readouterr().err


def test_one_piece_of_text_advises_the_setting(tmp_path):
    (tmp_path / "a.txt").write_text("HELLO\nWORLD\n")
    with pytest.raises(InputError, match="if each line is a sentence, use lines:PATH"):
        encoded(tmp_path)
    assert len(encoded(tmp_path, dataset="lines")) == 2


ENGLISH = "The cold river held a stone.\r\nA letter was left — for me.\r\n今天天气很好。\r\n"


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-32-le", codecs.BOM_UTF32_LE),
        ("utf-32-be", codecs.BOM_UTF32_BE),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_encodings_with_a_byte_order_mark_are_read(tmp_path, encoding, mark, compressed, monkeypatch):
    monkeypatch.setattr("sentence.corpora.MAX_LINE_BYTES", 40)  # longer than each line
    content = mark + ENGLISH.encode(encoding)
    if compressed:
        (tmp_path / "a.txt.gz").write_bytes(gzip.compress(content))
    else:
        (tmp_path / "a.txt").write_bytes(content)
    faults = Faults(strict=True)
    [(_, lines)] = find_corpus(f"folder:{tmp_path}", tmp_path).books(faults)
    assert list(lines) == ENGLISH.splitlines(keepends=True)
    assert sentences_in(tmp_path) == [
        ["The cold river held a stone.", "A letter was left — for me.", "今天天气很好。"]
    ]


def test_damaged_utf_16_is_a_warning_or_an_error_if_strict(tmp_path, capsys):
    content = "She came home.\nHe left early.\nThey stayed.\n".encode("utf-16")
    lone = "\ud800".encode("utf-16-le", "surrogatepass")
    path = tmp_path / "a.txt"
    path.write_bytes(content[:32] + lone + content[32:])
    assert len(encoded(tmp_path)) == 3
    assert f"warning: {path}: line 2 is not UTF-16 and is replaced in part" in capsys.readouterr().err
    with pytest.raises(InputError, match="line 2 is not UTF-16"):
        encoded(tmp_path, strict=True)


def test_utf_16_without_a_mark_and_zeros_are_binary(tmp_path):
    (tmp_path / "a.txt").write_bytes(ENGLISH.encode("utf-16-le"))
    with pytest.raises(InputError, match=r"binary: byte 1 is 0; .*UTF-8 or in UTF-16 with a byte-order mark"):
        sentences_in(tmp_path)
    (tmp_path / "a.txt").write_bytes("One line.\nTwo\0lines.\n".encode("utf-16"))
    with pytest.raises(InputError, match="binary: line 2 has a zero character"):
        sentences_in(tmp_path)


def test_utf_16_that_unpacks_to_a_disk_s_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sentence.corpora.MAX_UNPACKED_BYTES", 1 << 16)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(("Some words.\n" * (1 << 16)).encode("utf-16")))
    with pytest.raises(InputError, match="which no book does"):
        sentences_in(tmp_path)


def write_book(path, text="She came home. He left early.\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names_in(folder):
    return [path.relative_to(folder).as_posix() for path in find_corpus(f"folder:{folder}", folder).files]


def test_hidden_books_are_left_out_and_counted(tmp_path):
    for name in (
        "a.txt",
        "b/c.txt",
        ".ipynb_checkpoints/a-checkpoint.txt",
        "._a.txt",
        "__MACOSX/._a.txt",
        "b/.git/c.txt",
        ".d.txt",
        "cover.jpg",
        "README.md",
    ):
        write_book(tmp_path / name)
    assert names_in(tmp_path) == ["a.txt", "b/c.txt"]
    corpus = find_corpus(f"folder:{tmp_path}", tmp_path)
    assert (corpus.other_files, corpus.hidden) == (2, 5)


def test_endings_are_read_in_any_case(tmp_path):
    for name in ("a.txt", "B.TXT", "c.Txt"):
        write_book(tmp_path / name)
    (tmp_path / "D.TXT.GZ").write_bytes(gzip.compress(b"She came home. He left early.\n"))
    assert sorted(names_in(tmp_path)) == ["B.TXT", "D.TXT.GZ", "a.txt", "c.Txt"]
    assert sentences_in(tmp_path) == [["She came home.", "He left early."]] * 4


def test_linked_folders_of_books_are_read_once_and_cycles_end(tmp_path):
    write_book(tmp_path / "store" / "a.txt")
    folder = tmp_path / "books"
    write_book(folder / "b" / "c.txt")
    (folder / "first").symlink_to(tmp_path / "store")
    (folder / "second").symlink_to(tmp_path / "store")
    (folder / "b" / "back").symlink_to(folder)
    assert names_in(folder) == ["b/c.txt", "first/a.txt"]


FAST = ["--epochs", "2", "--batch-size", "8", "--encoder", "bow", "--embedding-dim", "4"]
FAST += ["--tasks", "neighbours"]


def flags_for(tmp_path, run, *flags):
    where = ["--dataset", f"folder:{tmp_path / 'books'}", "--output-dir", str(tmp_path / run)]
    return [*FAST, *where, "--device", "cpu", *flags]


def test_command_trains_on_chinese_and_says_what_is_left_out(tmp_path, capsys):
    write_book(tmp_path / "books" / "a.TXT", "".join(TEXTS["Chinese"] * 8) + "\n好。\n")
    write_book(tmp_path / "books" / "cover.jpg")
    write_book(tmp_path / "books" / ".trash" / "b.txt")
    train_main(flags_for(tmp_path, "run"))
    said = capsys.readouterr().err
    assert "1 books, 32 sentences" in said
    assert (
        "left out of the folder: 1 files that are not .txt or .txt.gz and 1 hidden files and folders" in said
    )
    assert "left out of the text: 1 pieces that are not sentences (one word; or capitals, numbers and" in said
    assert result_of(tmp_path / "run")["metrics"]["neighbours_accuracy"] > 0


def test_command_takes_a_sentence_a_line(tmp_path, capsys):
    write_book(tmp_path / "books" / "a.txt", "".join(f"{text.upper()}\n" for text in PLAIN * 4))
    error = failure_of(train_main, capsys, flags_for(tmp_path, "auto"))[-1]
    assert error.endswith("at least one is needed; if each line is a sentence, use lines:PATH")
    train_main(flags_for(tmp_path, "run", "--dataset", f"lines:{tmp_path / 'books'}"))
    assert "1 books, 16 sentences" in capsys.readouterr().err


def test_cache_of_other_rules_is_not_read(books, monkeypatch):
    built = []
    build = sentence.data._encode_into
    monkeypatch.setattr(sentence.data, "_encode_into", lambda *a: built.append(a) or build(*a))
    encoded(books)
    encoded(books, dataset="lines")
    monkeypatch.setattr(sentence.data, "FORMAT", 3)
    encoded(books)
    assert len(built) == 3
