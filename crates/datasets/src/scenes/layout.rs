//! Where things stand: the street's plan, sampled before anything is drawn. Lengths in metres.

use super::texture::{Color, shade};
use crate::random::Stream;

/// Height of the camera above the road.
pub(crate) const CAMERA: f32 = 1.5;

/// One building beside the street.
pub(crate) struct Block {
    /// Distance from the camera to the near and far end.
    pub(crate) near: f32,
    pub(crate) far: f32,
    /// Distance of the facade from the camera's axis.
    pub(crate) facade: f32,
    pub(crate) height: f32,
    pub(crate) color: Color,
    /// Width and height of a window's cell, and which part of the cell is glass.
    pub(crate) cell: (f32, f32),
    pub(crate) glass: (f32, f32),
    pub(crate) glass_brightness: f32,
    pub(crate) seed: u32,
    /// Plaster noise, brick courses or bare.
    pub(crate) roughness: f32,
}

/// Light, air and camera of a scene.
pub(crate) struct Light {
    pub(crate) zenith: Color,
    pub(crate) skyline: Color,
    pub(crate) clouds: f32,
    /// Per metre; the air's colour is `skyline`.
    pub(crate) haze: f32,
    /// Brightness of facades on the left and right.
    pub(crate) sides: [f32; 2],
    /// Width of the shadow that the dark side throws on the ground, and its brightness.
    pub(crate) shadow: f32,
    pub(crate) shadow_brightness: f32,
}

/// The plan of a street.
pub(crate) struct Street {
    /// Pixels per unit slope.
    pub(crate) focal: f32,
    pub(crate) vanishing: (f32, f32),
    /// Lateral offset of the road's left and right edge and of the facades.
    pub(crate) road: [f32; 2],
    pub(crate) facade: [f32; 2],
    pub(crate) blocks: [Vec<Block>; 2],
    pub(crate) road_color: Color,
    pub(crate) pavement_color: Color,
    pub(crate) slab: f32,
    pub(crate) marking: f32,
    pub(crate) crossing: f32,
    pub(crate) light: Light,
    pub(crate) seed: u32,
}

impl Street {
    /// Pixels per metre at distance `z`.
    pub(crate) fn scale(&self, z: f32) -> f32 {
        self.focal / z
    }

    /// Column of lateral offset `x` at distance `z`.
    pub(crate) fn column(&self, x: f32, z: f32) -> f32 {
        self.vanishing.0 + x * self.scale(z)
    }

    /// Row of height `y` above the ground at distance `z`.
    pub(crate) fn row(&self, y: f32, z: f32) -> f32 {
        self.vanishing.1 + (CAMERA - y) * self.scale(z)
    }
}

/// A grey with a slight cast: what roads, pavements and much of a town are made of.
pub(crate) fn grey(stream: &mut Stream, low: f32, high: f32, cast: f32) -> Color {
    let level = stream.range(low, high);
    let warm = stream.range(-cast, cast);
    let green = stream.range(-cast, cast) * 0.4;
    [level * (1.0 + warm), level * (1.0 + green), level * (1.0 - warm)]
}

/// A colour with the given largest saturation.
pub(crate) fn paint(stream: &mut Stream, brightness: f32, saturation: f32) -> Color {
    let lowest = 1.0 - saturation * stream.unit();
    let middle = lowest + (1.0 - lowest) * stream.unit();
    let order = stream.below(6);
    let [a, b, c] = [brightness, brightness * middle, brightness * lowest];
    match order {
        0 => [a, b, c],
        1 => [a, c, b],
        2 => [b, a, c],
        3 => [c, a, b],
        4 => [b, c, a],
        _ => [c, b, a],
    }
}

fn facade_color(stream: &mut Stream) -> Color {
    match stream.below(6) {
        0 => {
            let level = stream.range(0.25, 0.5);
            [level, level * stream.range(0.5, 0.7), level * stream.range(0.35, 0.6)]
        }
        1 => {
            let level = stream.range(0.5, 0.8);
            [level, level * stream.range(0.85, 0.95), level * stream.range(0.65, 0.85)]
        }
        2 => grey(stream, 0.7, 0.95, 0.06),
        3 => grey(stream, 0.2, 0.6, 0.1),
        _ => {
            let brightness = stream.range(0.35, 0.75);
            paint(stream, brightness, 0.5)
        }
    }
}

fn block(stream: &mut Stream, near: f32, facade: f32) -> Block {
    let height = if stream.chance(0.25) { stream.range(3.0, 6.0) } else { stream.range(6.0, 20.0) };
    Block {
        near,
        far: near + stream.range(6.0, 18.0),
        facade: facade + if stream.chance(0.4) { stream.range(0.0, 3.0) } else { 0.0 },
        height,
        color: facade_color(stream),
        cell: (stream.range(1.4, 3.2), stream.range(2.4, 3.6)),
        glass: (stream.range(0.3, 0.75), stream.range(0.35, 0.7)),
        glass_brightness: stream.range(0.15, 1.3),
        seed: stream.next() as u32,
        roughness: stream.range(0.05, 0.35),
    }
}

fn side(stream: &mut Stream, facade: f32) -> Vec<Block> {
    let mut blocks = Vec::new();
    let density = stream.range(0.45, 1.0);
    let mut near = stream.range(-4.0, 4.0);
    while near < 70.0 {
        let next = block(stream, near.max(0.3), facade);
        near = next.far + if stream.chance(0.3) { stream.range(2.0, 8.0) } else { 0.0 };
        if stream.chance(density) {
            blocks.push(next);
        }
    }
    blocks
}

fn light(stream: &mut Stream) -> Light {
    let level = stream.range(0.55, 1.1);
    let (zenith, skyline, clouds) = match stream.below(4) {
        0 => ([0.35 * level, 0.55 * level, 0.95 * level], [0.75 * level, 0.85 * level, level], stream.range(0.0, 0.5)),
        1 => (shade3(level, 0.85), shade3(level, 0.95), stream.range(0.1, 0.3)),
        2 => (shade3(level, 0.55), shade3(level, 0.75), stream.range(0.2, 0.6)),
        _ => ([0.4 * level, 0.42 * level, 0.6 * level], [level, 0.75 * level, 0.55 * level], stream.range(0.0, 0.5)),
    };
    let sunny = stream.chance(0.55);
    let dark = if sunny { stream.range(0.35, 0.65) } else { stream.range(0.75, 0.95) };
    let left = stream.chance(0.5);
    Light {
        zenith,
        skyline,
        clouds,
        haze: if stream.chance(0.2) { stream.range(0.008, 0.02) } else { stream.range(0.001, 0.006) },
        sides: if left { [dark, 1.0] } else { [1.0, dark] },
        shadow: if sunny { stream.range(0.0, 10.0) } else { 0.0 },
        shadow_brightness: dark,
    }
}

fn shade3(level: f32, factor: f32) -> Color {
    [level * factor, level * factor, level * factor * 1.03]
}

/// Samples the plan of a street for an image of `height` × `width`.
pub(crate) fn street(stream: &mut Stream, height: usize, width: usize) -> Street {
    let (h, w) = (height as f32, width as f32);
    let camera = stream.range(-1.5, 1.5);
    let road = [-stream.range(2.8, 5.5) - camera, stream.range(2.8, 5.5) - camera];
    let facade = [road[0] - stream.range(1.5, 5.0), road[1] + stream.range(1.5, 5.0)];
    let tone = grey(stream, 0.16, 0.36, 0.08);
    // Slabs are brighter than asphalt and often warmer.
    let (brighter, warmer) = (stream.range(1.3, 1.9), stream.range(0.0, 0.15));
    let pavement_color = shade([tone[0] * (1.0 + warmer), tone[1], tone[2] * (1.0 - warmer)], brighter);
    Street {
        focal: h * stream.range(0.85, 1.15),
        vanishing: (w * stream.range(0.32, 0.68), h * stream.range(0.38, 0.52)),
        road,
        facade,
        blocks: [side(stream, -facade[0]), side(stream, facade[1])],
        road_color: tone,
        pavement_color,
        slab: stream.range(0.5, 1.5),
        marking: if stream.chance(0.7) { stream.range(0.4, 0.95) } else { 0.0 },
        crossing: if stream.chance(0.25) { stream.range(5.0, 14.0) } else { f32::INFINITY },
        light: light(stream),
        seed: stream.next() as u32,
    }
}
