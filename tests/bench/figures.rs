//! The measured figures, as a table.
#![expect(clippy::print_stdout, reason = "the table is the benchmark's output")]

/// The measurements: one line each.
#[derive(Default)]
pub(crate) struct Figures(Vec<Figure>);

struct Figure {
    name: String,
    /// In ascending order.
    samples: Vec<f64>,
    /// The median, as a multiple of another measurement's.
    ratio: Option<f64>,
    goal: &'static str,
}

impl Figures {
    /// Adds a measurement and returns its median.
    pub(crate) fn add(&mut self, name: &str, samples: Vec<f64>, goal: &'static str) -> f64 {
        let figure = Figure::new(name, samples, goal);
        let median = figure.median();
        self.0.push(figure);
        median
    }

    /// Adds a measurement that alternated with another one of this median.
    pub(crate) fn add_relative(
        &mut self,
        base: f64,
        name: &str,
        samples: Vec<f64>,
        goal: &'static str,
    ) {
        let mut figure = Figure::new(name, samples, goal);
        figure.ratio = Some(figure.median() / base);
        self.0.push(figure);
    }

    /// Prints the table.
    pub(crate) fn print(&self, title: &str) {
        println!("{title}\n");
        println!(
            "{:<40}{:>9}{:>9}{:>9}{:>9}{:>8}",
            "", "min", "median", "max", "ratio", "goal"
        );
        for figure in &self.0 {
            let [min, max] = [figure.samples.first(), figure.samples.last()]
                .map(|sample| sample.copied().unwrap_or_default());
            let ratio = figure.ratio.map(|ratio| format!("{ratio:.2}"));
            println!(
                "{:<40}{min:>9.2}{:>9.2}{max:>9.2}{:>9}{:>8}",
                figure.name,
                figure.median(),
                ratio.unwrap_or_default(),
                figure.goal,
            );
        }
    }
}

impl Figure {
    fn new(name: &str, mut samples: Vec<f64>, goal: &'static str) -> Self {
        samples.sort_by(f64::total_cmp);
        Self {
            name: name.to_owned(),
            samples,
            ratio: None,
            goal,
        }
    }

    fn median(&self) -> f64 {
        self.samples[self.samples.len() / 2]
    }
}
