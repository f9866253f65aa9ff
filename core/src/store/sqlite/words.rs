//! Bare words of SQL text: what is in quotes or comments is not one.

/// Whether the text holds this keyword. An identifier of that name counts too, unless it is quoted.
pub(super) fn has_word(sql: &str, word: &str) -> bool {
    // Nearly no statement gets past this.
    let sql = sql.as_bytes();
    if !sql.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes())) {
        return false;
    }
    let mut rest = sql;
    while let Some((&first, after)) = rest.split_first() {
        let length = match first {
            b'\'' | b'"' | b'`' => 1 + through(after, &[first]),
            b'[' => 1 + through(after, b"]"),
            b'-' if after.first() == Some(&b'-') => 1 + through(after, b"\n"),
            b'/' if after.first() == Some(&b'*') => 2 + through(&after[1..], b"*/"),
            _ if is_word(first) => rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len()),
            _ => 1,
        };
        if rest[..length].eq_ignore_ascii_case(word.as_bytes()) {
            return true;
        }
        rest = &rest[length..];
    }
    false
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii()
}

/// How many bytes it is through the end mark, or through all if there is none. A doubled quote begins a new string, which
/// comes to the same.
fn through(text: &[u8], end: &[u8]) -> usize {
    text.windows(end.len()).position(|window| window == end).map_or(text.len(), |found| found + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_words_count() {
        for (sql, expected) in [
            ("INSERT OR ROLLBACK INTO t VALUES (1)", true),
            ("insert or/**/rollback into t values (1)", true),
            ("INSERT OR -- ROLLBACK\n ABORT INTO t VALUES (1)", false),
            ("INSERT INTO t VALUES ('it''s a ROLLBACK')", false),
            ("SELECT \"rollback\", [rollback], `rollback` FROM t /* rollback", false),
            ("SELECT rollbacks, a_rollback, rollback_at FROM t", false),
            ("SELECT '' ROLLBACK", true),
            ("ROLLBACK", true),
            ("'rollback", false),
            ("/", false),
            ("", false),
        ] {
            assert_eq!(has_word(sql, "ROLLBACK"), expected, "{sql}");
        }
    }
}
