//! Draws a scene: sky, facades and ground column by column, then the objects from far to near.

use super::{
    BUILDING, Canvas, PAVEMENT, ROAD, SKY, TREE,
    layout::{self, Block, CAMERA, Street},
    objects,
    texture::{Color, blend, lattice, noise, shade},
};
use crate::random::Stream;

/// Beyond this distance in metres only the skyline is drawn.
const HORIZON: f32 = 70.0;

/// Draws the scene of `key` in linear light.
pub(crate) fn scene(key: u64, height: usize, width: usize) -> Canvas {
    let mut stream = Stream::new(&[key, 1]);
    let street = layout::street(&mut stream, height, width);
    let mut canvas = Canvas::new(height, width);
    background(&mut canvas, &street);
    objects::draw(&mut canvas, &street, &mut stream);
    canvas
}

/// Light that reaches the eye from distance `z` through the air.
pub(crate) fn hazed(street: &Street, color: Color, z: f32) -> Color {
    let clear = 1.0 / (1.0 + z * street.light.haze);
    blend(street.light.skyline, color, clear * clear)
}

/// What a column's ray meets first: the block, the distance, and how far along the facade (or across its end wall).
struct Hit<'a> {
    block: &'a Block,
    z: f32,
    along: f32,
    end_wall: bool,
}

fn hit<'a>(street: &'a Street, side: usize, slope: f32) -> Option<Hit<'a>> {
    let mut nearest: Option<Hit<'a>> = None;
    for block in &street.blocks[side] {
        let across = slope * block.near;
        let found = if across >= block.facade {
            Hit { block, z: block.near, along: across, end_wall: true }
        } else {
            let z = block.facade / slope;
            if !(block.near..block.far).contains(&z) {
                continue;
            }
            Hit { block, z, along: z, end_wall: false }
        };
        if found.z < HORIZON && nearest.as_ref().is_none_or(|hit| found.z < hit.z) {
            nearest = Some(found);
        }
    }
    nearest
}

fn background(canvas: &mut Canvas, street: &Street) {
    let (height, width) = (canvas.height, canvas.width);
    for x in 0..width {
        let offset = x as f32 + 0.5 - street.vanishing.0;
        let side = usize::from(offset > 0.0);
        let slope = offset.abs().max(1e-3) / street.focal;
        let hit = hit(street, side, slope);
        let (top, base) = hit.as_ref().map_or((street.vanishing.1, street.vanishing.1), |hit| {
            (street.row(hit.block.height, hit.z), street.row(0.0, hit.z))
        });
        let skyline = skyline(street, x as f32 / height as f32);
        for y in 0..height {
            let v = y as f32 + 0.5;
            let (color, class) = if v >= base && v > street.vanishing.1 + 0.5 {
                ground(street, offset, v)
            } else if let (true, Some(hit)) = (v >= top, &hit) {
                (wall(street, hit, side, v), BUILDING)
            } else if v >= street.vanishing.1 - skyline.0 * height as f32 {
                let grain = noise(x as f32 * 0.7, v * 0.7, street.seed ^ 0x51) * 0.5 + 0.6;
                (hazed(street, shade(skyline.1, grain), HORIZON), skyline.2)
            } else {
                (sky(street, x as f32, v, height as f32), SKY)
            };
            let pixel = y * width + x;
            canvas.color[pixel] = color;
            canvas.class[pixel] = class;
        }
    }
}

/// Height (in images), colour and class of what closes the street far away, at `u` images from the left.
fn skyline(street: &Street, u: f32) -> (f32, Color, u8) {
    let cell = (u * 7.0).floor() as i32;
    let kind = lattice(cell, 3, street.seed);
    if kind < 0.5 {
        let height = 0.02 + 0.1 * lattice(cell, 5, street.seed);
        let level = 0.25 + 0.4 * lattice(cell, 6, street.seed);
        (height, [level, level * 0.95, level * 0.9], BUILDING)
    } else {
        let height = 0.02 + 0.09 * noise(u * 16.0, 7.0, street.seed);
        (height, [0.16, 0.22, 0.11], TREE)
    }
}

fn sky(street: &Street, x: f32, v: f32, height: f32) -> Color {
    let light = &street.light;
    let down = (v / street.vanishing.1).min(1.0);
    let clear = blend(light.zenith, light.skyline, down * down);
    let (u, w) = (x / height, v / height);
    let cloud =
        noise(u * 3.0, w * 6.0, street.seed ^ 0x11) * 0.65 + noise(u * 9.0, w * 18.0, street.seed ^ 0x12) * 0.35;
    let cover = ((cloud - 0.45) * 4.0).clamp(0.0, 1.0) * light.clouds * 2.0;
    let brightness = light.skyline[1] * (0.75 + 0.4 * cloud);
    blend(clear, [brightness, brightness, brightness], cover.min(1.0))
}

fn wall(street: &Street, hit: &Hit, side: usize, v: f32) -> Color {
    let block = hit.block;
    let up = CAMERA - (v - street.vanishing.1) * hit.z / street.focal;
    let brightness = street.light.sides[if hit.end_wall { 1 - side } else { side }];
    // Texture finer than a pixel would only alias, so it fades out with distance.
    let detail = (street.scale(hit.z) / 6.0).min(1.0);
    let (column, row) = (hit.along / block.cell.0, up / block.cell.1);
    let (cell_x, cell_y) = (column.floor(), row.floor());
    let inside = |position: f32, part: f32| (position - 0.5).abs() * 2.0 < part;
    let glass = inside(column - cell_x, block.glass.0)
        && inside(row - cell_y, block.glass.1)
        && !(hit.end_wall && block.roughness > 0.2);
    let grain = noise(hit.along * 1.7, up * 1.7, block.seed) - 0.5;
    let courses = noise(hit.along * 4.0, up * 12.0, block.seed ^ 1) - 0.5;
    let mut color = shade(block.color, 1.0 + block.roughness * (1.5 * grain + 1.5 * courses * detail));
    if glass {
        let one = lattice(cell_x as i32, cell_y as i32, block.seed ^ 2);
        let pane = shade(blend([0.12, 0.14, 0.16], street.light.skyline, one * 0.6), block.glass_brightness);
        color = blend(color, pane, 0.4 + 0.6 * detail);
    } else if cell_y < 1.0 && lattice(cell_x as i32, 77, block.seed) < 0.3 {
        // Shop fronts and posters: as colourful as signs and cars, yet building.
        let hue = |c: i32| 0.1 + 0.8 * lattice(cell_x as i32, c, block.seed ^ 3);
        color = blend(color, [hue(0), hue(1), hue(2)], 0.8);
    }
    if up > block.height - 0.4 {
        color = shade(color, 0.7);
    }
    hazed(street, shade(color, brightness), hit.z)
}

fn ground(street: &Street, offset: f32, v: f32) -> (Color, u8) {
    let z = street.focal * CAMERA / (v - street.vanishing.1);
    let across = offset * z / street.focal;
    let detail = (street.scale(z) / 8.0).min(1.0);
    let on_road = (street.road[0]..street.road[1]).contains(&across);
    let coarse = noise(across * 0.6, z * 0.35, street.seed ^ 0x21) - 0.5;
    let fine = noise(across * 6.0, z * 4.0, street.seed ^ 0x22) - 0.5;
    let (mut color, class) = if on_road {
        (shade(street.road_color, 1.0 + 0.45 * coarse + 0.35 * fine * detail), ROAD)
    } else {
        (shade(street.pavement_color, 1.0 + 0.45 * coarse + 0.35 * fine * detail), PAVEMENT)
    };
    let footprint = z * z / (street.focal * CAMERA);
    if on_road {
        color = road_details(street, color, across, z);
    } else {
        let joint = |position: f32, width: f32| {
            let cell = position / street.slab;
            (cell - cell.floor()) * street.slab < width
        };
        if footprint < 0.5 && (joint(across, 0.06 + z / street.focal) || joint(z, 0.06 + footprint)) {
            color = shade(color, 0.85);
        }
    }
    let kerb = (across - street.road[0]).abs().min((across - street.road[1]).abs());
    if kerb < 0.12 && !on_road {
        color = shade(color, if lattice(3, 3, street.seed) < 0.6 { 0.65 } else { 1.3 });
    }
    (hazed(street, shade(color, sunlight(street, across, z)), z), class)
}

/// Markings, patches of another asphalt and a pedestrian crossing.
fn road_details(street: &Street, color: Color, across: f32, z: f32) -> Color {
    let patch = noise(across * 0.45 + 9.0, z * 0.25, street.seed ^ 0x31);
    let mut color = if patch > 0.72 { shade(color, 0.72) } else { color };
    let middle = 0.5 * (street.road[0] + street.road[1]);
    let dashed = (z / 6.0) - (z / 6.0).floor() < 0.5;
    let line = (across - middle).abs() < 0.09 + z * 0.004 && dashed;
    let edge = (across - street.road[0] - 0.35).abs() < 0.07 && lattice(1, 1, street.seed) < 0.5;
    let zebra = (street.crossing..street.crossing + 3.0).contains(&z) && (across - across.floor()) < 0.5;
    if line || edge || zebra {
        let worn = noise(across * 5.0, z * 3.0, street.seed ^ 0x32);
        let white = street.marking * (0.6 + 0.4 * worn);
        color = blend(color, [0.9, 0.9, 0.85], white);
    }
    color
}

/// Brightness of the ground: the shadow of the dark side's houses, broken where there are gaps, and dappled by trees.
fn sunlight(street: &Street, across: f32, z: f32) -> f32 {
    let light = &street.light;
    if light.shadow <= 0.0 {
        return 1.0;
    }
    let dark_left = light.sides[0] < light.sides[1];
    let distance = if dark_left { across - street.facade[0] } else { street.facade[1] - across };
    let reach = light.shadow * (0.4 + 1.2 * noise(z * 0.18, 1.0, street.seed ^ 0x41));
    let dappled = noise(across * 1.1, z * 0.6, street.seed ^ 0x42) > 0.74;
    if distance < reach || dappled { light.shadow_brightness } else { 1.0 }
}
