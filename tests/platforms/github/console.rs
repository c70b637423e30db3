//! How the runner processes a step's output: it executes workflow commands, applies masks, and logs
//! the rest.
//!
//! As in `ActionCommandManager` of actions/runner: a workflow command is a line that starts with `::`.
//! After `stop-commands`, only the given token is a command.

/// The log of a job, with its masks.
#[derive(Debug, Default)]
pub(crate) struct Console {
    log: String,
    masks: Vec<String>,
    /// The annotations on the page of the job: level and text.
    pub(crate) annotations: Vec<(String, String)>,
    /// Every line, unmasked, as only the runner sees it.
    pub(crate) raw: String,
}

/// The state of the command parser, one per step.
#[derive(Debug, Default)]
pub(crate) struct CommandParser {
    stop_token: Option<String>,
}

impl Console {
    /// Processes a line of a step.
    pub(crate) fn process_line(&mut self, parser: &mut CommandParser, line: &str) {
        self.raw.push_str(line);
        self.raw.push('\n');
        if !self.execute_command(parser, line) {
            self.log.push_str(&self.masked(line));
            self.log.push('\n');
        }
    }

    /// The log that every reader of the repository can see.
    pub(crate) fn log(&self) -> &str {
        &self.log
    }

    /// The masked values.
    pub(crate) fn masks(&self) -> &[String] {
        &self.masks
    }

    /// Executes a workflow command. Returns whether the line was one.
    fn execute_command(&mut self, parser: &mut CommandParser, line: &str) -> bool {
        let Some((command, data)) = parse(line) else {
            return false;
        };
        if let Some(token) = &parser.stop_token {
            if command != *token {
                return false;
            }
            parser.stop_token = None;
            self.append(line);
            return true;
        }
        let (name, _) = command.split_once(' ').unwrap_or((&command, ""));
        match name {
            "stop-commands" => {
                parser.stop_token = Some(data);
                self.append(line);
            }
            "add-mask" => self.masks.push(data),
            "error" | "warning" | "notice" => {
                let text = self.masked(&data);
                self.annotations.push((name.to_owned(), text.clone()));
                self.append(&text);
            }
            _ => return false,
        }
        true
    }

    fn append(&mut self, line: &str) {
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

/// Parses a command and its data, unescaped.
fn parse(line: &str) -> Option<(String, String)> {
    let rest = line.trim_start().strip_prefix("::")?;
    let (command, data) = rest.split_once("::")?;
    let data = data
        .replace("%0D", "\r")
        .replace("%0A", "\n")
        .replace("%25", "%");
    Some((command.to_owned(), data))
}

#[test]
fn workflow_commands_are_distinguished_from_text() {
    let (mut console, mut parser) = (Console::default(), CommandParser::default());
    for line in [
        "::add-mask::one-secret",
        "say one-secret",
        "::stop-commands::word",
        "::add-mask::text",
        "text ::word::",
        "::word::",
        "::error title=a::b%0Ac",
    ] {
        console.process_line(&mut parser, line);
    }
    let log = "say ***\n::stop-commands::word\n::add-mask::text\ntext ::word::\n::word::\nb\nc\n";
    assert_eq!(console.log(), log);
    assert_eq!(console.masks(), ["one-secret"]);
    assert_eq!(
        console.annotations,
        [("error".to_owned(), "b\nc".to_owned())]
    );
}
