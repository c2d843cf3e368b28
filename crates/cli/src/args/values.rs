//! Values that options take.

/// A size as docker and QEMU read it: bytes, or K, M, G, T in powers of 1024, with an optional `i` and `B`.
pub(super) fn size_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` does not start with a whole number"))?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("`{unit}` is no unit; use K, M, G or T")),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("`{text}` is more than 64 bits hold"))
}

/// A VM's memory, as [`size_bytes`]; a Linux guest needs 64 MiB to start.
pub(super) fn memory_bytes(text: &str) -> Result<u64, String> {
    let bytes = size_bytes(text)?;
    if bytes >= 64 << 20 {
        Ok(bytes)
    } else {
        Err(format!("`{text}` is less than 64M"))
    }
}

/// A log's size, as [`size_bytes`]; below, each entry would be a file of its own.
pub(super) fn log_bytes(text: &str) -> Result<u64, String> {
    let bytes = size_bytes(text)?;
    if bytes >= 64 << 10 {
        Ok(bytes)
    } else {
        Err(format!("`{text}` is less than 64K"))
    }
}

/// A container's name, by the rule runc keeps: letters, digits, `_`, `+`, `-` and `.`, not `.` or `..`.
pub(super) fn container_id(text: &str) -> Result<String, String> {
    let well_formed = !text.is_empty()
        && text.len() <= 128
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b));
    if well_formed {
        Ok(text.to_owned())
    } else {
        Err("a container's name has 1 to 128 letters, digits, `_`, `+`, `-` or `.`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size_bytes("512M"), Ok(512 << 20));
        assert_eq!(size_bytes("2gib"), Ok(2 << 30));
        assert_eq!(size_bytes("134217728"), Ok(128 << 20));
        for bad in ["", "M", "1X", "99999999999T", "-1G"] {
            assert!(size_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_vm_has_enough_memory_to_start() {
        assert_eq!(memory_bytes("64M"), Ok(64 << 20));
        assert!(memory_bytes("63M").is_err());
    }

    #[test]
    fn names_that_could_be_paths_are_refused() {
        assert!(container_id("web-1.a_b+c").is_ok());
        for bad in ["", ".", "..", "a/b", "a b", "é"] {
            assert!(container_id(bad).is_err(), "{bad}");
        }
    }
}
