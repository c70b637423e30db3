//! What the runner makes of a step's output: orders are carried out, masks are applied, and
//! the rest is the log.
//!
//! As `ActionCommandManager` of actions/runner has it: an order is a line that begins with
//! `::`; after `stop-commands` none is one but the word that was given.

/// The log of one job, and what is masked in it.
#[derive(Debug, Default)]
pub(crate) struct Console {
    log: String,
    masks: Vec<String>,
    /// What the runner shows on the page of the job: the level and the text.
    pub(crate) annotations: Vec<(String, String)>,
    /// Every line as it came, unmasked: what the runner sees, and nobody else.
    pub(crate) wire: String,
}

/// The runner listens to each step anew.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    stopped: Option<String>,
}

impl Console {
    /// Takes a line of a step.
    pub(crate) fn take(&mut self, ear: &mut Ear, line: &str) {
        self.wire.push_str(line);
        self.wire.push('\n');
        if !self.is_carried_out(ear, line) {
            self.log.push_str(&self.masked(line));
            self.log.push('\n');
        }
    }

    /// What anybody who may read the repository can see.
    pub(crate) fn log(&self) -> &str {
        &self.log
    }

    /// How many values are masked.
    pub(crate) fn masks(&self) -> &[String] {
        &self.masks
    }

    fn is_carried_out(&mut self, ear: &mut Ear, line: &str) -> bool {
        let Some((order, data)) = parse(line) else {
            return false;
        };
        if let Some(word) = &ear.stopped {
            if order != *word {
                return false;
            }
            ear.stopped = None;
            self.note(line);
            return true;
        }
        let (name, _) = order.split_once(' ').unwrap_or((&order, ""));
        match name {
            "stop-commands" => {
                ear.stopped = Some(data);
                self.note(line);
            }
            "add-mask" => self.masks.push(data),
            "error" | "warning" | "notice" => {
                let text = self.masked(&data);
                self.annotations.push((name.to_owned(), text.clone()));
                self.note(&text);
            }
            _ => return false,
        }
        true
    }

    fn note(&mut self, line: &str) {
        self.log.push_str(&self.masked(line));
        self.log.push('\n');
    }

    fn masked(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for mask in &self.masks {
            line = line.replace(mask, "***");
        }
        line
    }
}

/// An order and its data, unescaped.
fn parse(line: &str) -> Option<(String, String)> {
    let rest = line.trim_start().strip_prefix("::")?;
    let (order, data) = rest.split_once("::")?;
    let data = data
        .replace("%0D", "\r")
        .replace("%0A", "\n")
        .replace("%25", "%");
    Some((order.to_owned(), data))
}

#[test]
fn orders_are_told_from_text() {
    let (mut console, mut ear) = (Console::default(), Ear::default());
    for line in [
        "::add-mask::one-secret",
        "say one-secret",
        "::stop-commands::word",
        "::add-mask::text",
        "text ::word::",
        "::word::",
        "::error title=a::b%0Ac",
    ] {
        console.take(&mut ear, line);
    }
    let log = "say ***\n::stop-commands::word\n::add-mask::text\ntext ::word::\n::word::\nb\nc\n";
    assert_eq!(console.log(), log);
    assert_eq!(console.masks(), ["one-secret"]);
    assert_eq!(
        console.annotations,
        [("error".to_owned(), "b\nc".to_owned())]
    );
}
