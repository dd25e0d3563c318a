//! Names come from files: none may become markup.

/// Text for HTML, in an element or a quoted attribute.
pub fn html(text: &str) -> String {
    replace(text, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    })
}

/// Text for LaTeX, outside maths; the signs that our own labels use become commands.
pub fn latex(text: &str) -> String {
    let text = replace(text, |c| match c {
        '\\' => Some(r"\textbackslash{}"),
        '{' => Some(r"\{"),
        '}' => Some(r"\}"),
        '$' => Some(r"\$"),
        '&' => Some(r"\&"),
        '#' => Some(r"\#"),
        '%' => Some(r"\%"),
        '_' => Some(r"\_"),
        '~' => Some(r"\textasciitilde{}"),
        '^' => Some(r"\textasciicircum{}"),
        '<' => Some(r"\textless{}"),
        '>' => Some(r"\textgreater{}"),
        'ε' => Some(r"$\varepsilon$"),
        'α' => Some(r"$\alpha$"),
        '∞' => Some(r"$_\infty$"),
        'ℓ' => Some(r"$\ell$"),
        '×' => Some(r"$\times$"),
        '·' => Some(r"$\cdot$"),
        '–' => Some("--"),
        '≤' => Some(r"$\le$"),
        '→' => Some(r"$\to$"),
        '\n' | '\r' => Some(" "),
        _ => None,
    });
    // The norm is one symbol with an index, not two formulas.
    text.replace(r"$\ell$$_\infty$", r"$\ell_\infty$").replace(r"$\ell$2", r"$\ell_2$").replace(r"$\ell$1", r"$\ell_1$")
}

/// Text for a cell of a Markdown table.
pub fn markdown(text: &str) -> String {
    replace(text, |c| match c {
        '\\' => Some(r"\\"),
        '|' => Some(r"\|"),
        '*' => Some(r"\*"),
        '_' => Some(r"\_"),
        '`' => Some(r"\`"),
        '[' => Some(r"\["),
        ']' => Some(r"\]"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '&' => Some("&amp;"),
        '\n' | '\r' => Some(" "),
        _ => None,
    })
}

fn replace(text: &str, with: impl Fn(char) -> Option<&'static str>) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match with(c) {
            Some(other) => escaped.push_str(other),
            None => escaped.push(c),
        }
    }
    escaped
}
