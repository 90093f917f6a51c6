//! A strict, streaming reader of the JSON that a safetensors header may be.
//!
//! Written by hand rather than taken from a general parser, for three reasons: an object's duplicate keys must be seen
//! (general parsers keep the last one), an error must say at which byte of the file it shows, and a hostile header must
//! cost no memory beyond what is kept of it, so the text is never held as a whole. Grammar: RFC 8259.

use crate::error::Cause;
use std::io::{ErrorKind, Read};

/// How deep a value that is skipped may nest. The format itself nests 3 deep.
const MAX_DEPTH: usize = 32;

/// The longest number worth looking at: 2⁶⁴ has 20 digits.
const LONGEST_NUMBER: usize = 40;

/// Reads JSON from `input`, knowing where in the file it is.
pub(crate) struct Json<R> {
    input: R,
    buffer: Vec<u8>,
    next: usize,
    filled: usize,
    /// Position in the file of the buffer's first byte.
    base: u64,
}

impl<R: Read> Json<R> {
    /// A reader of `input`, which ends where the header does; its first byte is byte `base` of the file.
    pub(crate) fn new(input: R, base: u64) -> Json<R> {
        Json { input, buffer: vec![0; 64 << 10], next: 0, filled: 0, base }
    }

    /// Where the next byte is in the file.
    pub(crate) fn position(&self) -> u64 {
        self.base + self.next as u64
    }

    /// The bytes already read from the input and not yet consumed; empty only at the end.
    fn window(&mut self) -> Result<&[u8], Cause> {
        while self.next == self.filled {
            self.base += self.filled as u64;
            (self.next, self.filled) = (0, 0);
            match self.input.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => self.filled = n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(Cause::Io { doing: "read the header", source }),
            }
        }
        Ok(&self.buffer[self.next..self.filled])
    }

    #[inline]
    fn peek(&mut self) -> Result<Option<u8>, Cause> {
        // Nearly every byte is at hand; then nothing is called, and no room made for an error.
        match self.buffer[..self.filled].get(self.next) {
            Some(&byte) => Ok(Some(byte)),
            None => Ok(self.window()?.first().copied()),
        }
    }

    /// An error at the next byte, which shows what is there.
    pub(crate) fn unexpected(&mut self, expected: &'static str) -> Cause {
        let found = match self.peek() {
            Err(cause) => return cause,
            Ok(None) => "the end of the header".to_string(),
            Ok(Some(b)) if b.is_ascii_graphic() => format!("`{}`", b as char),
            Ok(Some(b)) => format!("byte {b:#04x}"),
        };
        Cause::Syntax { name: None, at: self.position(), expected, found }
    }

    #[inline]
    fn skip_space(&mut self) -> Result<(), Cause> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek()? {
            self.next += 1;
        }
        Ok(())
    }

    /// Consumes `byte` if it is the very next one.
    #[inline]
    pub(crate) fn first_byte_is(&mut self, byte: u8) -> Result<bool, Cause> {
        let is = self.peek()? == Some(byte);
        self.next += usize::from(is);
        Ok(is)
    }

    /// Consumes `byte` if it comes next, after white space.
    #[inline]
    pub(crate) fn accept(&mut self, byte: u8) -> Result<bool, Cause> {
        self.skip_space()?;
        self.first_byte_is(byte)
    }

    /// Consumes `byte`, after white space, or says that `expected` was expected.
    #[inline]
    pub(crate) fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Cause> {
        if self.accept(byte)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// Nothing but white space may follow.
    pub(crate) fn expect_end(&mut self) -> Result<(), Cause> {
        self.skip_space()?;
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(self.unexpected("nothing but spaces after the header's object")),
        }
    }

    /// The members of an object whose `{` was consumed: `member` is called with each key, which it may take, and the key's position.
    pub(crate) fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, &mut String, u64) -> Result<(), Cause>,
    ) -> Result<(), Cause> {
        if self.accept(b'}')? {
            return Ok(());
        }
        let mut key = String::new();
        loop {
            self.skip_space()?;
            let at = self.position();
            key = self.string_into(key, "a key in quotes")?;
            self.expect(b':', "`:` after a key")?;
            member(self, &mut key, at)?;
            if !self.accept(b',')? {
                return self.expect(b'}', "`,` or `}`");
            }
        }
    }

    /// The elements of an array, brackets included: `element` is called with the index of each and must consume it.
    pub(crate) fn elements(
        &mut self,
        expected: &'static str,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), Cause>,
    ) -> Result<(), Cause> {
        self.expect(b'[', expected)?;
        if self.accept(b']')? {
            return Ok(());
        }
        for i in 0.. {
            element(self, i)?;
            if !self.accept(b',')? {
                break;
            }
        }
        self.expect(b']', "`,` or `]`")
    }

    /// A string.
    pub(crate) fn string(&mut self, expected: &'static str) -> Result<String, Cause> {
        let mut text = self.string_into(String::new(), expected)?;
        text.shrink_to_fit();
        Ok(text)
    }

    /// A string, in the memory of another.
    fn string_into(&mut self, memory: String, expected: &'static str) -> Result<String, Cause> {
        self.skip_space()?;
        let at = self.position();
        self.expect(b'"', expected)?;
        let mut text = memory.into_bytes();
        text.clear();
        loop {
            let window = self.window()?;
            let run = window.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(window.len());
            text.extend_from_slice(&window[..run]);
            let stop = window.get(run).copied();
            let ended = window.is_empty();
            self.next += run;
            match stop {
                Some(b'"') => break,
                Some(b'\\') => self.escape(&mut text)?,
                Some(_) => return Err(self.unexpected("a character of a string (control characters are escaped)")),
                None if ended => return Err(self.unexpected("`\"` at the end of a string")),
                None => {}
            }
        }
        self.next += 1;
        String::from_utf8(text).map_err(|_| Cause::NotUtf8 { at })
    }

    /// An escape, of which the backslash comes next.
    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), Cause> {
        const EXPECTED: &str = "an escape of JSON (\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX)";
        self.next += 1;
        let plain = match self.peek()? {
            Some(b @ (b'"' | b'\\' | b'/')) => b,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let c = self.unicode_escape()?;
                text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.unexpected(EXPECTED)),
        };
        self.next += 1;
        text.push(plain);
        Ok(())
    }

    /// `uXXXX`, or two of them that form a surrogate pair.
    fn unicode_escape(&mut self) -> Result<char, Cause> {
        let at = self.position();
        let lone = |unit: u32| Cause::Syntax {
            name: None,
            at,
            expected: "a pair of surrogates or a character",
            found: format!("the lone surrogate \\u{unit:04x}"),
        };
        let high = self.hex4()?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high).ok_or_else(|| lone(high));
        }
        if !self.first_byte_is(b'\\')? || self.peek()? != Some(b'u') {
            return Err(lone(high));
        }
        let low = self.hex4()?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(lone(high));
        }
        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).ok_or_else(|| lone(high))
    }

    /// The `u` that comes next and its four hexadecimal digits.
    fn hex4(&mut self) -> Result<u32, Cause> {
        self.next += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek()?.and_then(|b| (b as char).to_digit(16)) else {
                return Err(self.unexpected("four hexadecimal digits"));
            };
            unit = unit << 4 | digit;
            self.next += 1;
        }
        Ok(unit)
    }

    /// The characters of a number, whether or not they form one.
    fn literal(&mut self, expected: &'static str) -> Result<Literal, Cause> {
        self.skip_space()?;
        let mut literal = Literal { at: self.position(), bytes: [0; LONGEST_NUMBER], len: 0 };
        while let Some(b @ (b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) = self.peek()? {
            let Some(place) = literal.bytes.get_mut(literal.len) else {
                let found = format!("{}…", literal.text());
                return Err(Cause::Syntax { name: None, at: literal.at, expected, found });
            };
            *place = b;
            literal.len += 1;
            self.next += 1;
        }
        if literal.len == 0 { Err(self.unexpected(expected)) } else { Ok(literal) }
    }

    /// A whole number from 0 to 2⁶⁴ − 1, written with digits alone.
    pub(crate) fn unsigned(&mut self, expected: &'static str) -> Result<u64, Cause> {
        let literal = self.literal(expected)?;
        let text = literal.text();
        let plain = text == "0" || !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(n) if plain => Ok(n),
            _ => Err(Cause::Syntax { name: None, at: literal.at, expected, found: text.to_string() }),
        }
    }

    /// Reads over any value, up to a fixed depth.
    pub(crate) fn skip_value(&mut self, depth: usize) -> Result<(), Cause> {
        if depth == MAX_DEPTH {
            return Err(self.unexpected("no value nested deeper than 32"));
        }
        self.skip_space()?;
        match self.peek()? {
            Some(b'"') => self.string("a string").map(drop),
            Some(b'{') => {
                self.next += 1;
                self.members(|json, _, _| json.skip_value(depth + 1))
            }
            Some(b'[') => self.elements("an array", |json, _| json.skip_value(depth + 1)),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => {
                let literal = self.literal("a JSON value")?;
                let text = literal.text();
                if is_json_number(text) {
                    return Ok(());
                }
                Err(Cause::Syntax { name: None, at: literal.at, expected: "a JSON number", found: text.to_string() })
            }
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), Cause> {
        for &b in word.as_bytes() {
            if !self.first_byte_is(b)? {
                return Err(self.unexpected("`true`, `false` or `null`"));
            }
        }
        Ok(())
    }
}

/// The characters of a number, and where in the file they begin.
struct Literal {
    at: u64,
    bytes: [u8; LONGEST_NUMBER],
    len: usize,
}

impl Literal {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default() // all of them are ASCII
    }
}

/// Whether `text` is a number by JSON's grammar: no leading zero or plus, digits around a point and after an exponent.
fn is_json_number(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['+', '-']).unwrap_or(e))),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((w, f)) => (w, Some(f)),
        None => (mantissa, None),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Result<String, Cause> {
        Json::new(text.as_bytes(), 8).string("a string")
    }

    #[test]
    fn strings_and_their_escapes() {
        assert_eq!(string(r#" "a\"\\\/\b\f\n\r\té层" "#).unwrap(), "a\"\\/\u{8}\u{c}\n\r\té层");
        assert_eq!(string(r#""\u0041\u5c42\ud83d\ude00\u0000""#).unwrap(), "A层😀\0");
        for bad in [
            r#""a"#,
            r#""\x""#,
            r#""\u12g4""#,
            r#""\ud83d""#,
            r#""\ud83dx""#,
            r#""\ud83d\u0041""#,
            r#""\ude00""#,
            "\"\n\"",
        ] {
            assert!(string(bad).is_err(), "{bad:?} was read");
        }
        assert!(matches!(Json::new(&b"  \"\xff\""[..], 8).string(""), Err(Cause::NotUtf8 { at: 10 })));
    }

    #[test]
    fn a_string_may_cross_the_buffers_end() {
        let long = "層é\\n".repeat(60_000);
        assert_eq!(string(&format!("\"{long}\"")).unwrap(), "層é\n".repeat(60_000));
    }

    #[test]
    fn only_plain_whole_numbers_are_unsigned() {
        let number = |text: &str| Json::new(text.as_bytes(), 0).unsigned("a number");
        assert_eq!(number(" 0,").unwrap(), 0);
        assert_eq!(number("18446744073709551615").unwrap(), u64::MAX);
        for bad in
            ["-1", "-0", "1.0", "1e3", "007", "+1", "18446744073709551616", "", "x", "\"1\"", "null", &"9".repeat(99)]
        {
            assert!(number(bad).is_err(), "{bad:?} was read");
        }
    }

    #[test]
    fn skipping_follows_the_grammar_and_stops_at_a_depth() {
        let skip = |text: &str| {
            let mut json = Json::new(text.as_bytes(), 0);
            json.skip_value(0).and_then(|()| json.expect_end())
        };
        for good in ["0", "-0.5e+7", "[1, {\"a\": [true, false, null]}, \"x\"]", "{}", "[]", " 12E0 "] {
            assert!(skip(good).is_ok(), "{good}");
        }
        for bad in
            ["01", "1.", ".5", "1e", "+1", "--1", "tru", "nul", "[1,]", "{\"a\"}", "{\"a\":1,}", "[1 2]", "1 1", ""]
        {
            assert!(skip(bad).is_err(), "{bad:?} was skipped");
        }
        assert!(skip(&format!("{}{}", "[".repeat(31), "]".repeat(31))).is_ok());
        assert!(skip(&"[".repeat(100_000)).is_err());
        assert!(skip(&"{\"a\":".repeat(50_000)).is_err());
    }

    #[test]
    fn errors_say_where() {
        let mut json = Json::new(&b"  ?"[..], 100);
        let Err(Cause::Syntax { at, found, .. }) = json.expect(b'{', "an object") else { panic!("accepted") };
        assert_eq!((at, found.as_str()), (102, "`?`"));
    }
}
