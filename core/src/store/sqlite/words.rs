//! SQL text word by word: what is in quotes or comments is no word.

/// Whether the text says these words, one directly after the other. Identifiers of these names count too, unless they are
/// quoted.
pub(super) fn says(sql: &str, phrase: &[&str]) -> bool {
    let mentions =
        |word: &str| sql.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
    // Nearly no statement gets past this.
    if !phrase.iter().all(|word| mentions(word)) {
        return false;
    }
    let tokens: Vec<&str> = tokens(sql).map(|(_, token)| token).collect();
    tokens.windows(phrase.len()).any(|found| found.iter().zip(phrase).all(|(token, word)| is(token, word)))
}

/// The condition `condition` put before all others of a trigger's; `None` if the text is no trigger's.
pub(super) fn with_condition(trigger: &str, condition: &str) -> Option<String> {
    const FIRST_OF_A_STATEMENT: [&str; 7] = ["INSERT", "UPDATE", "DELETE", "SELECT", "REPLACE", "WITH", "VALUES"];
    let tokens: Vec<(usize, &str)> = tokens(trigger).collect();
    // A column may be called `begin`.
    let body = tokens
        .windows(2)
        .find(|pair| is(pair[0].1, "BEGIN") && FIRST_OF_A_STATEMENT.iter().any(|statement| is(pair[1].1, statement)));
    let (body, _) = body?[0];
    let when = tokens.iter().find(|(at, token)| *at < body && is(token, "WHEN"));
    Some(match when {
        Some((at, word)) => {
            let (before, own) = (&trigger[..*at], &trigger[at + word.len()..body]);
            format!("{before}WHEN {condition} AND ({own}) {}", &trigger[body..])
        }
        None => format!("{}WHEN {condition} {}", &trigger[..body], &trigger[body..]),
    })
}

fn is(token: &str, word: &str) -> bool {
    token.eq_ignore_ascii_case(word)
}

/// Words, quotations and single other characters, each with where it begins. Spaces and comments are left out.
fn tokens(sql: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = &sql.as_bytes()[at..];
            let (&first, after) = rest.split_first()?;
            let is_comment = matches!(rest, [b'-', b'-', ..] | [b'/', b'*', ..]);
            let length = match first {
                b'\'' | b'"' | b'`' => 1 + through(after, &[first]),
                b'[' => 1 + through(after, b"]"),
                b'-' if is_comment => 1 + through(after, b"\n"),
                b'/' if is_comment => 2 + through(&after[1..], b"*/"),
                _ if is_word(first) => rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len()),
                _ => 1,
            };
            let token = (at, &sql[at..at + length]);
            at += length;
            if !is_comment && !first.is_ascii_whitespace() {
                return Some(token);
            }
        }
    })
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
            ("ß ROLLBACK 'ß", true),
            ("/", false),
            ("", false),
        ] {
            assert_eq!(says(sql, &["ROLLBACK"]), expected, "{sql}");
        }
    }

    #[test]
    fn a_phrase_is_of_neighbours() {
        for (sql, expected) in [
            ("REFERENCES t DEFERRABLE INITIALLY DEFERRED", true),
            ("references t deferrable initially /* really */\n deferred", true),
            ("initially TEXT, deferred TEXT REFERENCES t DEFERRABLE INITIALLY IMMEDIATE", false),
            ("'INITIALLY' DEFERRED", false),
            ("INITIALLY", false),
        ] {
            assert_eq!(says(sql, &["INITIALLY", "DEFERRED"]), expected, "{sql}");
        }
    }

    #[test]
    fn a_condition_comes_before_the_triggers_own() {
        for (trigger, expected) in [
            (
                "CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; END",
                "CREATE TRIGGER a AFTER INSERT ON t WHEN f() BEGIN SELECT 1; END",
            ),
            (
                "CREATE TRIGGER a AFTER UPDATE OF begin ON t FOR EACH ROW when NEW.begin OR 1 -- BEGIN SELECT\nBEGIN DELETE FROM t WHERE CASE WHEN 1 THEN 1 END; END",
                "CREATE TRIGGER a AFTER UPDATE OF begin ON t FOR EACH ROW WHEN f() AND ( NEW.begin OR 1 -- BEGIN SELECT\n) BEGIN DELETE FROM t WHERE CASE WHEN 1 THEN 1 END; END",
            ),
            (
                "CREATE TRIGGER \"WHEN\" DELETE ON [begin]BEGIN WITH x AS (SELECT 1) SELECT * FROM x; END",
                "CREATE TRIGGER \"WHEN\" DELETE ON [begin]WHEN f() BEGIN WITH x AS (SELECT 1) SELECT * FROM x; END",
            ),
        ] {
            assert_eq!(with_condition(trigger, "f()").as_deref(), Some(expected));
        }
        assert_eq!(with_condition("CREATE TABLE t (id)", "f()"), None);
    }
}
