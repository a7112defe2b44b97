//! "Did you mean ...?": the known name nearest to an unknown one.
//!
//! Most unknown keys are a slip of the finger or of the shift key, and naming the right one saves a
//! look into the documentation. Far-off guesses would only confuse, so the distance is bounded.

use super::errors::quoted;

/// Longer names are not compared: nobody mistypes them into a known one.
const MAX_CHARS: usize = 64;

/// The candidate nearest to `name`, if one is near.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().chars().take(MAX_CHARS + 1).collect();
    if name.len() > MAX_CHARS {
        return None;
    }
    let tolerance = (name.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_CHARS)
        .map(|candidate| {
            let chars: Vec<char> = candidate.to_lowercase().chars().collect();
            (distance(&name, &chars), candidate)
        })
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "x"?`, or nothing.
pub fn hint<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map(|near| format!("; did you mean {}?", quoted(near))).unwrap_or_default()
}

/// Levenshtein's distance: insertions, deletions and replacements, by rows of the usual table.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let replace = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replace.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["Listen", "Clusters", "Regions", "MaxIdleConns", "MaxIdleConnsPerHost"];
        let cases = [
            ("listen", Some("Listen")),
            ("Lisen", Some("Listen")),
            ("Cluster", Some("Clusters")),
            ("MaxIdleConsPerHost", Some("MaxIdleConnsPerHost")),
            ("Frobnicate", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }

    #[test]
    fn the_distance_is_levenshteins() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        for (a, b, expected) in [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0)]
        {
            assert_eq!(distance(&chars(a), &chars(b)), expected, "{a} {b}");
        }
    }
}
