"""What is written as a message is read back by the standard library as it was meant."""

from email import message_from_bytes, policy
from email.headerregistry import Address

from hypothesis import given
from hypothesis import strategies as st

from prepaid_pipeline.mail import mime

_PIECES = st.sampled_from(["plan", " ", "é", "=", '"', "\\", ",", "<", "@", "(", "."])
# As the mails' headers are made: no control characters, single spaces, none at the ends. What looks
# encoded (RFC 2047) is read as if it were: nobody's name is to look like it.
_WORDS = (
    st.lists(_PIECES, max_size=20)
    .map(lambda pieces: " ".join("".join(pieces).split()))
    .filter(lambda text: "=?" not in text)
)
_TEXT = st.text(st.characters(categories=("L", "M", "N", "P", "S")), max_size=1200)


@given(name=_WORDS, subject=_WORDS, plain=_TEXT, content=st.binary(max_size=500))
def test_headers_texts_and_files(name: str, subject: str, plain: str, content: bytes) -> None:
    """Short or long, plain or in any script, with quotes, commas and brackets."""
    headers = [("To", Address(name, addr_spec="customer@example.com")), ("Subject", subject)]
    file = mime.Attachment("receipt.pdf", "application/pdf", content)
    written = mime.message(headers, plain, "<p></p>", [file], seed="seed")
    assert written.isascii()
    assert all(len(line) <= 998 for line in written.split(b"\r\n"))
    read = message_from_bytes(written, policy=policy.default)
    (to,) = read["To"].addresses
    assert (to.display_name, to.addr_spec) == (name, "customer@example.com")
    assert read["Subject"] == subject
    assert read.get_body(("plain",)).get_content().rstrip() == plain
    assert [part.get_content() for part in read.iter_attachments()] == [content]
