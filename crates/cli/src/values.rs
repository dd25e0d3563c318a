//! Values as people type them.

use std::str::FromStr;

/// A number that may be a fraction: `8/255`, `0.03`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fraction(pub f32);

impl FromStr for Fraction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number =
            |text: &str| text.trim().parse::<f64>().map_err(|_| "expected a number such as 0.03 or 8/255".to_owned());
        let value = match text.split_once('/') {
            Some((numerator, denominator)) => number(numerator)? / number(denominator)?,
            None => number(text)?,
        };
        let value = value as f32;
        if value.is_finite() { Ok(Self(value)) } else { Err("expected a finite number such as 0.03 or 8/255".into()) }
    }
}

/// Width and height: `240x176`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| text.trim().parse::<usize>().ok().filter(|&side| side > 0);
        let sides = text.split_once(['x', '×']).and_then(|(width, height)| Some((side(width)?, side(height)?)));
        let (width, height) = sides.ok_or("expected WIDTHxHEIGHT such as 240x176")?;
        Ok(Self { width, height })
    }
}

/// A setting of a network or an attack: `base=16`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment<T> {
    /// The setting.
    pub name: String,
    /// Its value.
    pub value: T,
}

impl<T: FromStr> FromStr for Assignment<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let parsed =
            parts.and_then(|(name, value)| Some((name, value.parse().ok()?))).filter(|(name, _)| !name.is_empty());
        let (name, value) = parsed.ok_or("expected NAME=VALUE such as base=16")?;
        Ok(Self { name: name.to_owned(), value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_divided_before_they_are_rounded() {
        assert_eq!("8/255".parse(), Ok(Fraction(8.0 / 255.0)));
        assert_eq!("0.03".parse(), Ok(Fraction(0.03)));
        for wrong in ["8/0", "eight", "8//255", "", "nan"] {
            assert!(wrong.parse::<Fraction>().unwrap_err().contains("such as 0.03 or 8/255"), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_width_first() {
        assert_eq!("240x176".parse(), Ok(Size { width: 240, height: 176 }));
        for wrong in ["240", "240x", "0x8", "-1x8"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn assignments_need_a_name_and_a_value() {
        assert_eq!("base=16".parse(), Ok(Assignment { name: "base".into(), value: 16usize }));
        assert!("base".parse::<Assignment<usize>>().is_err() && "=3".parse::<Assignment<usize>>().is_err());
    }
}
