//! The machine's own apt sources, turned to a newer suite.
//!
//! Only the distribution's archive is taken over: entries whose suite is the machine's release. Addresses and keys stay
//! as they are, so a mirror or a proxy that the machine uses is used here too.

use std::path::Path;

use crate::error::ServiceError;

const OWN_SOURCES: &str = "/etc/apt/sources.list";
const OWN_SOURCES_FOLDER: &str = "/etc/apt/sources.list.d";

/// Suites that may have a newer package than the machine's own, newest first.
pub(super) fn newer_suites() -> &'static [&'static str] {
    if os_release("ID").as_deref() == Some("ubuntu") { &["devel"] } else { &["sid", "forky", "testing"] }
}

/// Writes source files for `suite` into `folder`.
pub(super) fn write(suite: &str, folder: &Path) -> Result<(), ServiceError> {
    let release = os_release("VERSION_CODENAME").unwrap_or_else(|| "stable".to_owned());
    let mut files = vec![Path::new(OWN_SOURCES).to_owned()];
    let parts = std::fs::read_dir(OWN_SOURCES_FOLDER).into_iter().flatten().filter_map(Result::ok);
    files.extend(parts.map(|entry| entry.path()));
    let (mut lines, mut stanzas) = (String::new(), String::new());
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => lines.push_str(&turn_lines(&text, &release, suite)),
            Some("sources") => stanzas.push_str(&turn_stanzas(&text, &release, suite)),
            _ => {}
        }
    }
    for (name, text) in [("own.list", lines), ("own.sources", stanzas)] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(ServiceError::io("write", path))?;
    }
    Ok(())
}

/// The one-line form: `deb [options] uri suite component…`.
fn turn_lines(text: &str, release: &str, suite: &str) -> String {
    let turn = |line: &str| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (format!("[{options}] "), rest),
            None => (String::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, own, components) = (words.next()?, words.next()?, words.collect::<Vec<_>>());
        (own == release && components.contains(&"main"))
            .then(|| format!("deb {options}{uri} {suite} {}\n", components.join(" ")))
    };
    text.lines().filter_map(turn).collect()
}

/// The deb822 form: fields in stanzas, a field goes on in lines that begin with a space.
fn turn_stanzas(text: &str, release: &str, suite: &str) -> String {
    let uncommented: String =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let turn = |stanza: &str| {
        let mut fields: Vec<(&str, String)> = Vec::new();
        for line in stanza.lines().filter(|line| !line.trim().is_empty()) {
            if line.starts_with([' ', '\t']) {
                let (_, value) = fields.last_mut()?;
                value.push('\n');
                value.push_str(line);
            } else {
                let (name, value) = line.split_once(':')?;
                fields.push((name, value.trim().to_owned()));
            }
        }
        let words = |wanted: &str| {
            let field = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            field.map(|(_, value)| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
        };
        let has = |name, word: &str| words(name).iter().any(|each| each == word);
        if !has("Types", "deb") || !has("Suites", release) || !has("Components", "main") || has("Enabled", "no") {
            return None;
        }
        let mut turned = String::new();
        for (name, value) in &fields {
            let value = match name.to_ascii_lowercase().as_str() {
                "types" => "deb",
                "suites" => suite,
                _ => value,
            };
            turned.push_str(&format!("{name}: {value}\n"));
        }
        Some(turned + "\n")
    };
    uncommented.split("\n\n").filter_map(turn).collect()
}

fn os_release(wanted: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_entries_keep_address_and_options() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm main contrib\n\
                    deb http://mirror.example/debian bookworm-updates main\n\
                    deb http://vendor.example/linux bookworm stable\n\
                    deb-src http://mirror.example/debian bookworm main\n";
        assert_eq!(
            turn_lines(text, "bookworm", "sid"),
            "deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian sid main contrib\n"
        );
    }

    #[test]
    fn stanzas_keep_address_and_keys() {
        let text = "# comment\nTypes: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\nSigned-By:\n -----BEGIN\n .\n -----END\n\n\
                    Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n\n\
                    Types: deb\nURIs: http://other.example\nSuites: bookworm\nComponents: main\nEnabled: no\n";
        assert_eq!(
            turn_stanzas(text, "bookworm", "sid"),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: sid\nComponents: main\n\
             Signed-By: \n -----BEGIN\n .\n -----END\n\n"
        );
    }
}
