//! Environment variables.

use crate::SpecifyError;

/// Where programs are looked for, if the image does not say.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What becomes of one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// It is set.
    Set(String, String),
    /// It is not there, whatever the image says.
    Unset(String),
}

impl Variable {
    /// Reads `NAME=value`, or `NAME`, whose value `own` tells: one that the caller has not either is taken away.
    ///
    /// # Errors
    /// There is no name.
    pub fn parse(text: &str, own: &dyn Fn(&str) -> Option<String>) -> Result<Self, SpecifyError> {
        let refused = |problem: &str| SpecifyError::Variable {
            place: format!("--env {text}"),
            problem: problem.to_owned(),
        };
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, own(text)),
        };
        if name.is_empty() {
            return Err(refused("a variable has a name"));
        }
        if text.contains('\0') {
            return Err(refused("it holds a NUL"));
        }
        Ok(match value {
            Some(value) => Self::Set(name.to_owned(), value),
            None => Self::Unset(name.to_owned()),
        })
    }
}

/// The variables of a file for `--env-file`: a line each, `NAME=value` as it stands, or `NAME` for the caller's own;
/// lines that begin with `#` are comments. `file` names it in errors.
///
/// # Errors
/// A name that is none, with the line's number.
pub fn variables_of_file(
    file: &str,
    text: &str,
    own: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Variable>, SpecifyError> {
    let mut variables = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let refused = |problem: String| SpecifyError::Variable {
            place: format!("{file}, line {}", index + 1),
            problem,
        };
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() {
            return Err(refused("no variable name".to_owned()));
        }
        if name.contains(char::is_whitespace) {
            return Err(refused(format!("variable `{name}` contains whitespaces")));
        }
        if line.contains('\0') {
            return Err(refused("it holds a NUL".to_owned()));
        }
        match line.split_once('=') {
            Some((name, value)) => variables.push(Variable::Set(name.to_owned(), value.to_owned())),
            // Unlike --env: one the caller has not is not mentioned at all.
            None => variables.extend(own(line).map(|value| Variable::Set(line.to_owned(), value))),
        }
    }
    Ok(variables)
}

/// The container's environment: a search path and host name, then the image's, then the user's, the later one of a name
/// in the place of the earlier. `HOME` follows from the user, who is known in the root filesystem only.
pub(crate) fn environment(
    image: &[String],
    wished: &[Variable],
    hostname: &str,
    terminal: bool,
) -> Vec<String> {
    let mut all = vec![
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOSTNAME".to_owned(), hostname.to_owned()),
    ];
    if terminal {
        all.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    let of_image = image.iter().filter_map(|entry| {
        let (name, value) = entry.split_once('=')?;
        (!name.is_empty() && !entry.contains('\0')).then(|| Variable::Set(name.to_owned(), value.to_owned()))
    });
    for variable in of_image.chain(wished.iter().cloned()) {
        match variable {
            Variable::Set(name, value) => match all.iter_mut().find(|(there, _)| *there == name) {
                Some((_, there)) => *there = value,
                None => all.push((name, value)),
            },
            Variable::Unset(name) => all.retain(|(there, _)| *there != name),
        }
    }
    all.into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own(name: &str) -> Option<String> {
        (name == "MINE").then(|| "my own".to_owned())
    }

    fn variables(texts: &[&str]) -> Vec<Variable> {
        texts
            .iter()
            .map(|text| Variable::parse(text, &own).unwrap())
            .collect()
    }

    #[test]
    fn the_users_variables_replace_the_images_which_replace_the_usual_ones() {
        let image = ["A=1".to_owned(), "PATH=/image".to_owned(), "B=x=y".to_owned()];
        let wished = variables(&["A=2", "MINE", "B", "EMPTY="]);
        let expected = ["PATH=/image", "HOSTNAME=box", "A=2", "MINE=my own", "EMPTY="];
        assert_eq!(environment(&image, &wished, "box", false), expected);
        assert_eq!(environment(&[], &[], "box", true)[2], "TERM=xterm");
        assert_eq!(
            environment(&[], &variables(&["TERM=vt100"]), "box", true)[2],
            "TERM=vt100"
        );
        assert!(Variable::parse("=x", &own).is_err() && Variable::parse("", &own).is_err());
    }

    #[test]
    fn a_files_lines_are_taken_as_they_stand() {
        let text = "# comment\n\n  A= spaced \nB=\"quoted\" # no comment\nMINE\nNOT_MINE\nC==\n";
        let set = |name: &str, value: &str| Variable::Set(name.to_owned(), value.to_owned());
        let expected = [
            set("A", " spaced "),
            set("B", "\"quoted\" # no comment"),
            set("MINE", "my own"),
            set("C", "="),
        ];
        assert_eq!(variables_of_file("f", text, &own).unwrap(), expected);
        let error = variables_of_file("f", "A=1\nB C=2\n", &own)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "f, line 2: variable `B C` contains whitespaces");
        assert!(variables_of_file("f", "=1", &own).is_err());
    }

    proptest! {
        #[test]
        fn every_name_is_there_once_with_its_last_value(image in proptest::collection::vec("[A-C]=[0-9]", 0..6), wished in proptest::collection::vec("[A-C](=[0-9])?", 0..6)) {
            let texts: Vec<_> = wished.iter().map(String::as_str).collect();
            let got = environment(&image, &variables(&texts), "h", false);
            for name in ["A", "B", "C"] {
                let prefix = format!("{name}=");
                let values: Vec<_> = got.iter().filter(|entry| entry.starts_with(&prefix)).collect();
                prop_assert!(values.len() <= 1);
                let mut all = image.iter().chain(&wished);
                let last = all.rfind(|entry| *entry == name || entry.starts_with(&prefix));
                let expected = last.filter(|last| last.contains('='));
                prop_assert_eq!(values.first().copied(), expected);
            }
        }
    }
}
