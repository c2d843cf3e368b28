//! Progress of long work: a bar on a terminal, nothing anywhere else.

use std::io::{self, Read};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error, if that is a terminal.
#[derive(Debug, Clone)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// For bytes of which `total` are expected, or nobody knows how many.
    pub(crate) fn bytes(total: Option<u64>, quiet: bool, what: &'static str) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        Self(bar)
    }

    /// A reader that moves the bar.
    pub(crate) fn reading<R: Read + Send + 'static>(&self, source: R) -> Counted<R> {
        Counted {
            source,
            bar: self.clone(),
        }
    }

    /// Moves it by hand.
    pub(crate) fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// See [`Bar::reading`].
#[derive(Debug)]
pub(crate) struct Counted<R> {
    source: R,
    bar: Bar,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(bytes)?;
        self.bar.0.inc(length as u64);
        Ok(length)
    }
}

/// A size for a person.
pub(crate) fn bytes(size: u64) -> HumanBytes {
    HumanBytes(size)
}
