//! Server-sent events, as they come: bytes in, messages out.
//!
//! Source: WHATWG HTML, section 9.2.6. A stream is endless, so what is held of it is bounded: a line and the data of one
//! message.

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its kind; `message` if the server named none.
    pub event: String,
    /// Its data, lines joined.
    pub data: String,
    /// The stream's last id, this message's or an earlier one's.
    pub id: Option<String>,
}

/// More than the bound without an end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {max} bytes")]
pub struct Endless {
    /// The bound.
    pub max: usize,
}

/// Reads one stream.
#[derive(Debug)]
pub struct Parser {
    max: usize,
    line: Vec<u8>,
    /// The byte before ended a line, as the first of two may.
    after_cr: bool,
    is_first: bool,
    event: String,
    data: String,
    has_data: bool,
    id: Option<String>,
    retry_ms: Option<u64>,
}

impl Parser {
    /// A parser at the beginning of a stream; a message of more than `max` bytes ends it.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            after_cr: false,
            is_first: true,
            event: String::new(),
            data: String::new(),
            has_data: false,
            id: None,
            retry_ms: None,
        }
    }

    /// The messages that end within these bytes.
    ///
    /// # Errors
    /// [`Endless`]: nothing more can be read.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Vec<Message>, Endless> {
        let mut messages = Vec::new();
        for byte in bytes {
            let is_second = std::mem::replace(&mut self.after_cr, *byte == b'\r') && *byte == b'\n';
            match byte {
                b'\n' if is_second => {}
                b'\n' | b'\r' => messages.extend(self.end_line()),
                other => {
                    if self.line.len() + self.data.len() >= self.max {
                        return Err(Endless { max: self.max });
                    }
                    self.line.push(*other);
                }
            }
        }
        Ok(messages)
    }

    /// How long the server wants those to wait that come back, in milliseconds.
    #[must_use]
    pub const fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    fn end_line(&mut self) -> Option<Message> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let mut line: &str = &text;
        if std::mem::take(&mut self.is_first) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_message();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|digit| digit.is_ascii_digit()) => self.retry_ms = value.parse().ok(),
            // A comment has no field's name.
            _ => {}
        }
        None
    }

    fn end_message(&mut self) -> Option<Message> {
        let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let event = if event.is_empty() { "message".to_owned() } else { event };
        Some(Message { event, data, id: self.id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "\u{feff}retry: 500\n: listening\n\nevent: wakeup\ndata: {\"a\":1}\nid: 7\n\n\
        data:one\ndata: two\r\nnonsense\ndata\r\revent: lost\n\ndata: cut";

    fn message(event: &str, data: &str) -> Message {
        Message { event: event.to_owned(), data: data.to_owned(), id: Some("7".to_owned()) }
    }

    /// However the bytes are cut, as networks do.
    #[test]
    fn messages_come_out_whole() {
        for size in [1, 2, 3, 7, STREAM.len()] {
            let mut parser = Parser::new(100);
            let read = |bytes: &[u8]| parser.read(bytes).expect("bounded");
            let messages: Vec<Message> = STREAM.as_bytes().chunks(size).flat_map(read).collect();
            assert_eq!(messages, [message("wakeup", "{\"a\":1}"), message("message", "one\ntwo\n")], "{size}");
            assert_eq!(parser.retry_ms(), Some(500));
        }
    }

    #[test]
    fn what_does_not_end_is_given_up() {
        let mut parser = Parser::new(10);
        assert_eq!(parser.read(b"data: 12345"), Err(Endless { max: 10 }));
        let mut parser = Parser::new(20);
        let lines = "data: 1234567\n".repeat(3);
        assert_eq!(parser.read(lines.as_bytes()), Err(Endless { max: 20 }));
    }
}
