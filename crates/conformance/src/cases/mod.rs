//! The cases, by subject. A case's name is `subject/rule`.

mod containers;
mod errors;
mod execute;
mod frames;
mod limits;
mod lives;
mod negotiation;
mod notification;
mod ordering;
mod processes;
mod properties;
mod settings;
mod shutdown;
mod stdio;
mod terminal;

use crate::case::Case;

/// All cases, in the order they run on an agent that is new for each.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        frames::CASES,
        negotiation::CASES,
        errors::CASES,
        limits::CASES,
        ordering::CASES,
        execute::CASES,
        processes::CASES,
        stdio::CASES,
        terminal::CASES,
        containers::CASES,
        lives::CASES,
        properties::CASES,
        settings::CASES,
        notification::CASES,
        shutdown::CASES,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_of_one_shape() {
        let mut seen = HashSet::new();
        for case in super::all() {
            assert!(seen.insert(case.name), "{}", case.name);
            let (subject, rule) = case.name.split_once('/').unwrap();
            let plain = |text: &str| {
                !text.is_empty()
                    && text
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            };
            assert!(plain(subject) && plain(rule), "{}", case.name);
            assert!(!case.section.is_empty(), "{}", case.name);
        }
    }

    /// A case that nothing can fail says nothing.
    #[test]
    fn each_case_has_a_broken_agent_that_it_catches() {
        let tests = [
            include_str!("../../tests/broken_agents.rs"),
            include_str!("../../tests/bent/rules.rs"),
        ]
        .map(|text| {
            let (_, table) = text.split_once("const RULES").unwrap();
            table.split_once("\n];").unwrap().0
        });
        for case in super::all() {
            let name = format!("\"{}\"", case.name);
            assert!(
                tests.iter().any(|table| table.contains(&name)),
                "{name}: no agent breaks this rule"
            );
        }
    }
}
