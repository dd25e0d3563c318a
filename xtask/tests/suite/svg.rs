//! Plain pictures for the book, as text that a diff can show.

use std::fmt::Write;

const COLORS: [&str; 8] = ["#1b6ca8", "#d1495b", "#2e933c", "#edae49", "#7b4b94", "#00798c", "#8d6346", "#5c5c5c"];
const FONT: &str = "font-family='Helvetica,Arial,sans-serif' font-size='13' fill='#222'";

/// A plot's frame: where it stands, what its axes are called, and what they reach from and to.
pub struct Axes<'a> {
    pub left: f64,
    pub title: &'a str,
    pub x: (&'a str, f64, f64),
    pub y: (&'a str, f64, f64),
}

const SIDE: [f64; 2] = [420.0, 360.0];
const MARGIN: [f64; 2] = [62.0, 40.0];

impl Axes<'_> {
    fn at(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let share = |value: f64, (_, from, to): (&str, f64, f64)| (value - from) / (to - from);
        [self.left + MARGIN[0] + SIDE[0] * share(x, self.x), MARGIN[1] + SIDE[1] * (1.0 - share(y, self.y))]
    }

    fn draw(&self, out: &mut String) {
        let [left, top] = self.at([self.x.1, self.y.2]);
        let (right, bottom) = (left + SIDE[0], top + SIDE[1]);
        let _ =
            writeln!(out, "<text x='{left:.1}' y='{:.1}' font-weight='bold' {FONT}>{}</text>", top - 14.0, self.title);
        for step in 0..=4 {
            let share = f64::from(step) / 4.0;
            let [x, y] = [self.x.1 + share * (self.x.2 - self.x.1), self.y.1 + share * (self.y.2 - self.y.1)];
            let [px, py] = self.at([x, y]);
            let _ = writeln!(
                out,
                "<path d='M{left:.1} {py:.1}H{right:.1}M{px:.1} {top:.1}V{bottom:.1}' stroke='#ddd' fill='none'/>\n\
                 <text x='{:.1}' y='{:.1}' text-anchor='end' {FONT}>{}</text>\n\
                 <text x='{px:.1}' y='{:.1}' text-anchor='middle' {FONT}>{}</text>",
                left - 6.0,
                py + 4.0,
                tidy(y),
                bottom + 18.0,
                tidy(x)
            );
        }
        let (middle, height) = (f64::midpoint(left, right), f64::midpoint(top, bottom));
        let _ = writeln!(
            out,
            "<text x='{middle:.1}' y='{:.1}' text-anchor='middle' {FONT}>{}</text>\n\
             <text transform='translate({:.1} {height:.1}) rotate(-90)' text-anchor='middle' {FONT}>{}</text>",
            bottom + 38.0,
            self.x.0,
            left - 44.0,
            self.y.0
        );
    }

    /// Lines, each with its points.
    pub fn lines(&self, lines: &[(String, Vec<[f64; 2]>)]) -> String {
        let mut out = String::new();
        self.draw(&mut out);
        for (index, (_, points)) in lines.iter().enumerate() {
            let path: Vec<String> =
                points.iter().map(|&point| self.at(point)).map(|[x, y]| format!("{x:.1} {y:.1}")).collect();
            let color = COLORS[index % COLORS.len()];
            let dash = if index < COLORS.len() { "" } else { " stroke-dasharray='5 3'" };
            let _ =
                writeln!(out, "<path d='M{}' stroke='{color}' stroke-width='2'{dash} fill='none'/>", path.join("L"));
        }
        out
    }

    /// Numbered points; those beyond the axes are left out.
    pub fn points(&self, points: &[(String, [f64; 2])]) -> String {
        let mut out = String::new();
        self.draw(&mut out);
        for (index, (_, point)) in points.iter().enumerate() {
            let within = |value: f64, (_, from, to): (&str, f64, f64)| (from..=to).contains(&value);
            if !within(point[0], self.x) || !within(point[1], self.y) {
                continue;
            }
            let ([x, y], color) = (self.at(*point), COLORS[index % COLORS.len()]);
            let _ = writeln!(
                out,
                "<circle cx='{x:.1}' cy='{y:.1}' r='9' fill='{color}' fill-opacity='0.85'/>\n\
                 <text x='{x:.1}' y='{:.1}' text-anchor='middle' font-family='Helvetica,Arial,sans-serif' font-size='10' \
                 fill='#fff'>{}</text>",
                y + 3.5,
                index + 1
            );
        }
        out
    }
}

/// The names of lines, or of numbered points.
pub fn legend<'a>(left: f64, names: impl Iterator<Item = &'a str>, numbered: bool) -> String {
    let mut out = String::new();
    for (index, name) in names.enumerate() {
        let (y, color) = (MARGIN[1] + 8.0 + 18.0 * index as f64, COLORS[index % COLORS.len()]);
        let label = if numbered { format!("{} {name}", index + 1) } else { name.to_owned() };
        let dash = if numbered || index < COLORS.len() { "" } else { " stroke-dasharray='5 3'" };
        let _ = writeln!(
            out,
            "<path d='M{left:.1} {y:.1}h18' stroke='{color}' stroke-width='4'{dash}/>\n\
             <text x='{:.1}' y='{:.1}' {FONT}>{label}</text>",
            left + 24.0,
            y + 4.5
        );
    }
    out
}

/// A whole picture.
pub fn picture(width: f64, height: f64, parts: &[String]) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}'>\n\
         <rect width='100%' height='100%' fill='#fff'/>\n{}</svg>\n",
        parts.concat()
    )
}

/// The width of a plot with its axis, and the height of a picture that has plots.
pub const PLOT: f64 = SIDE[0] + MARGIN[0] + 26.0;
pub const HEIGHT: f64 = SIDE[1] + MARGIN[1] + 54.0;

fn tidy(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
