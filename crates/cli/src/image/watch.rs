//! Progress of an image's layers: a bar for each on a terminal, elsewhere a line when one is done.

use std::{
    collections::HashMap,
    io::IsTerminal,
    sync::{Mutex, PoisonError},
};

use cofferdam_store::{Image, LayerDocument, LayerProgress, Reference, Watch};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::progress;

/// The bars.
pub(crate) struct Bars {
    quiet: bool,
    terminal: bool,
    all: MultiProgress,
    bars: Mutex<HashMap<usize, ProgressBar>>,
}

impl Bars {
    /// None yet.
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            terminal: std::io::stderr().is_terminal(),
            all: MultiProgress::new(),
            bars: Mutex::default(),
        }
    }

    /// The image is here.
    pub(crate) fn done(&self, name: &Reference, image: &Image) {
        let ignored: u64 = image.layers.iter().map(|layer| layer.ignored_xattrs).sum();
        if ignored > 0 && !self.quiet {
            eprintln!("cofferdam: {ignored} extended attributes were left out: Linux has none of their kind");
        }
        if self.quiet {
            println!("{}", image.id);
        } else {
            println!("{name}@{}", image.manifest_digest);
        }
    }

    fn say(&self, layer: &LayerDocument, what: &str) {
        let hex = layer.name().hex();
        let line = format!("{}: {what}", &hex[..12]);
        if self.terminal {
            // The terminal may be gone; the work goes on.
            let _ = self.all.println(line);
        } else {
            eprintln!("{line}");
        }
    }
}

impl Watch for Bars {
    fn layer(&self, number: usize, layer: &LayerDocument, progress: LayerProgress) {
        if self.quiet {
            return;
        }
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            LayerProgress::Present => self.say(layer, "is here already"),
            LayerProgress::Started if self.terminal => {
                let bar = self.all.add(ProgressBar::new(layer.bytes));
                if let Ok(style) = ProgressStyle::with_template(
                    "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
                ) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_message(layer.name().hex()[..12].to_owned());
                bars.insert(number, bar);
            }
            LayerProgress::Started => {}
            LayerProgress::Read(bytes) => {
                if let Some(bar) = bars.get(&number) {
                    bar.inc(bytes);
                }
            }
            LayerProgress::Made => {
                if let Some(bar) = bars.remove(&number) {
                    bar.finish_and_clear();
                }
                self.say(layer, &format!("done, {}", progress::bytes(layer.bytes)));
            }
        }
    }
}
