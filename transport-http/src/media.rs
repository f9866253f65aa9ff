//! The two forms of every message, and how each side says which one it speaks.

use mime::Mime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::wire::{self, WireError};

use crate::routes;

/// The form of a message's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Media {
    /// In its envelope, as on every carrier: for programs.
    #[default]
    MessagePack,
    /// As it is, for people and browsers; 64-bit numbers that a double cannot hold are text, bytes are base64.
    Json,
}

impl Media {
    /// As `Content-Type` and `Accept` name it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::MessagePack => routes::MESSAGEPACK,
            Self::Json => routes::JSON,
        }
    }

    /// The form that a `Content-Type` names; parameters other than a charset of UTF-8 are ignored.
    #[must_use]
    pub fn of_content_type(header: &str) -> Option<Self> {
        let mime: Mime = header.trim().parse().ok()?;
        let is_utf8 = mime.get_param(mime::CHARSET).is_none_or(|charset| charset == mime::UTF_8);
        Self::of_essence(mime.essence_str()).filter(|_| is_utf8)
    }

    /// The form that an `Accept` likes best; `otherwise` if it leaves the choice, or there is none.
    #[must_use]
    pub fn accepted(header: Option<&str>, otherwise: Self) -> Option<Self> {
        let Some(header) = header.filter(|header| !header.trim().is_empty()) else { return Some(otherwise) };
        let mut best: Option<(f32, Self)> = None;
        for (mime, quality) in ranges(header) {
            let liked = match mime.essence_str() {
                "*/*" | "application/*" => Some(otherwise),
                essence => Self::of_essence(essence),
            };
            let Some(liked) = liked.filter(|_| quality > 0.0) else { continue };
            if best.is_none_or(|(before, _)| quality > before) {
                best = Some((quality, liked));
            }
        }
        best.map(|(_, media)| media)
    }

    fn of_essence(essence: &str) -> Option<Self> {
        match essence {
            "application/vnd.msgpack" | "application/msgpack" | "application/x-msgpack" => Some(Self::MessagePack),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    /// A message in this form; a long one compressed, if the form has a place for that.
    #[must_use]
    pub fn encode<T: Serialize>(self, message: &T) -> Vec<u8> {
        match self {
            Self::MessagePack => wire::encode_compressed(message),
            Self::Json => wire::encode_json(message),
        }
    }

    /// The message that these bytes are in this form, of at most `max` bytes.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8], max: usize) -> Result<T, WireError> {
        match self {
            Self::MessagePack => wire::decode(bytes, max),
            Self::Json => wire::decode_json(bytes, max),
        }
    }
}

/// Whether an `Accept` takes events.
#[must_use]
pub fn accepts_events(header: Option<&str>) -> bool {
    let Some(header) = header.filter(|header| !header.trim().is_empty()) else { return true };
    ranges(header)
        .any(|(mime, quality)| quality > 0.0 && matches!(mime.essence_str(), "*/*" | "text/*" | routes::EVENT_STREAM))
}

/// The ranges of an `Accept` with their qualities; what is none is left out.
fn ranges(header: &str) -> impl Iterator<Item = (Mime, f32)> {
    header.split(',').filter_map(|range| {
        let mime: Mime = range.trim().parse().ok()?;
        let quality = match mime.get_param("q") {
            Some(quality) => quality.as_str().parse::<f32>().ok().filter(|quality| (0.0..=1.0).contains(quality))?,
            None => 1.0,
        };
        Some((mime, quality))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accept_header_chooses() {
        let (json, packed) = (Some(Media::Json), Some(Media::MessagePack));
        for (header, chosen) in [
            ("application/json", json),
            ("application/vnd.msgpack", packed),
            ("APPLICATION/JSON; charset=utf-8", json),
            ("application/json;q=0.1, application/msgpack", packed),
            ("text/html, application/json;q=0.5", json),
            ("application/json;q=0", None),
            ("text/html", None),
            ("*/*", packed),
            ("text/html, */*;q=0.1", packed),
            ("application/*, application/json;q=0.9", packed),
            ("nonsense", None),
            ("application/json;q=abc", None),
            ("", packed),
        ] {
            assert_eq!(Media::accepted(Some(header), Media::MessagePack), chosen, "{header}");
        }
        assert_eq!(Media::accepted(None, Media::Json), json);
    }

    #[test]
    fn a_content_type_names_one_form() {
        assert_eq!(Media::of_content_type("application/json; charset=UTF-8"), Some(Media::Json));
        assert_eq!(Media::of_content_type("application/x-msgpack"), Some(Media::MessagePack));
        for other in ["application/x-www-form-urlencoded", "application/json; charset=latin1", "*/*", "", "json"] {
            assert_eq!(Media::of_content_type(other), None, "{other}");
        }
    }

    #[test]
    fn events_are_asked_for() {
        assert!(accepts_events(None) && accepts_events(Some("*/*")) && accepts_events(Some("text/event-stream")));
        assert!(!accepts_events(Some("application/json")) && !accepts_events(Some("text/event-stream;q=0")));
    }
}
