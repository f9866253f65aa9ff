//! What somebody who mistyped a name most likely meant.

/// The name that is most like this one, if any is like it.
pub(crate) fn nearest<'n>(mistyped: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let likely = names.into_iter().map(|name| (strsim::jaro_winkler(mistyped, name), name));
    let (likeness, best) = likely.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness > 0.8).then_some(best)
}
