//! Trees, poles, signs, cars and pedestrians: flat or boxed shapes at a distance, drawn from far to near.

use super::{
    CAR, Canvas, PEDESTRIAN, POLE, SIGN, TREE,
    layout::{Street, grey, paint},
    render::hazed,
    texture::{Color, blend, lattice, noise, shade},
};
use crate::random::Stream;

/// What stands in the street.
enum Thing {
    Tree { trunk: f32, crown: f32, color: Color },
    Pole { height: f32, thickness: f32, arm: f32, color: Color },
    Sign { height: f32, size: f32, shape: usize, colors: [Color; 2], pole: bool },
    Car { length: f32, facing: bool, color: Color },
    Pedestrian { height: f32, stride: f32, colors: [Color; 3], bag: bool },
}

struct Placed {
    thing: Thing,
    /// Lateral offset and distance of the foot's middle.
    x: f32,
    z: f32,
    seed: u32,
}

/// Places and draws the objects.
pub(crate) fn draw(canvas: &mut Canvas, street: &Street, stream: &mut Stream) {
    let mut things = place(street, stream);
    // A stable sort by distance: objects at the same distance keep the order in which they were placed.
    things.sort_by(|a, b| b.z.total_cmp(&a.z));
    for (order, placed) in things.iter().enumerate() {
        let mut brush = Brush { canvas, street, z: placed.z, object: order as u16 + 1 };
        match &placed.thing {
            Thing::Tree { trunk, crown, color } => tree(&mut brush, placed, *trunk, *crown, *color),
            Thing::Pole { height, thickness, arm, color } => {
                pole(&mut brush, placed, *height, *thickness, *arm, *color)
            }
            Thing::Sign { height, size, shape, colors, pole } => {
                sign(&mut brush, placed, (*height, *size), *shape, *colors, *pole);
            }
            Thing::Car { length, facing, color } => car(&mut brush, placed, *length, *facing, *color),
            Thing::Pedestrian { height, stride, colors, bag } => {
                pedestrian(&mut brush, placed, *height, *stride, *colors, *bag);
            }
        }
    }
}

fn place(street: &Street, stream: &mut Stream) -> Vec<Placed> {
    let mut things = Vec::new();
    let mut add = |thing, x, z, stream: &mut Stream| things.push(Placed { thing, x, z, seed: stream.next() as u32 });
    for side in 0..2 {
        let out = if side == 0 { -1.0 } else { 1.0 };
        let kerb = street.road[side];
        let walk = street.facade[side] - kerb;
        let mut z = stream.range(4.0, 14.0);
        let spacing = stream.range(6.0, 16.0);
        let trees = stream.range(0.0, 0.8);
        while z < 50.0 {
            if stream.chance(trees) {
                let thing =
                    Thing::Tree { trunk: stream.range(0.8, 3.0), crown: stream.range(0.9, 2.4), color: leaves(stream) };
                let x = kerb + walk * stream.range(0.25, 1.0);
                add(thing, x, z + stream.range(-1.5, 1.5), stream);
            }
            z += spacing;
        }
        for _ in 0..1 + stream.below(4) {
            let arm = if stream.chance(0.3) { -out * stream.range(0.8, 1.8) } else { 0.0 };
            let thing = Thing::Pole {
                height: stream.range(2.8, 7.5),
                thickness: stream.range(0.28, 0.45),
                arm,
                color: if stream.chance(0.6) { grey(stream, 0.03, 0.1, 0.1) } else { grey(stream, 0.75, 1.0, 0.1) },
            };
            let x = kerb + out * stream.range(0.2, 0.7);
            let z = 4.0 + 8.0 * stream.unit() * stream.unit();
            add(thing, x, z, stream);
        }
        for _ in 0..1 + stream.below(3) {
            let brightness = stream.range(0.6, 1.0);
            let colors = [vivid(stream, brightness), grey(stream, 0.55, 1.0, 0.05)];
            let thing = Thing::Sign {
                height: stream.range(1.9, 3.2),
                size: stream.range(0.9, 1.7),
                shape: stream.below(4),
                colors,
                pole: stream.chance(0.85),
            };
            let x = kerb + out * stream.range(0.2, 1.2);
            let z = 4.0 + 8.0 * stream.unit();
            add(thing, x, z, stream);
        }
        for _ in 0..stream.below(5) {
            let x = kerb + out * walk * stream.range(0.15, 0.85);
            let z = 3.5 + 6.0 * stream.unit();
            add(person(stream), x, z, stream);
        }
        if stream.chance(0.6) {
            let mut z = stream.range(4.0, 12.0);
            while z < 40.0 {
                if stream.chance(0.65) {
                    let thing =
                        Thing::Car { length: stream.range(3.8, 5.0), facing: side == 0, color: lacquer(stream) };
                    add(thing, kerb - out * stream.range(1.0, 1.3), z, stream);
                }
                z += stream.range(5.2, 8.0);
            }
        }
    }
    for _ in 0..stream.below(3) {
        let lane = stream.range(0.3, 0.7);
        let x = street.road[0] + (street.road[1] - street.road[0]) * lane;
        let thing = Thing::Car { length: stream.range(3.8, 5.5), facing: stream.chance(0.5), color: lacquer(stream) };
        let z = stream.range(6.0, 30.0);
        add(thing, x, z, stream);
    }
    for _ in 0..stream.below(3) {
        if stream.chance(0.5) {
            let x = street.road[0] + (street.road[1] - street.road[0]) * stream.unit();
            let z = stream.range(4.0, 9.0);
            add(person(stream), x, z, stream);
        }
    }
    things
}

fn leaves(stream: &mut Stream) -> Color {
    let level = stream.range(0.14, 0.5);
    match stream.below(4) {
        0 => [level, level * stream.range(0.6, 0.95), level * stream.range(0.3, 0.5)],
        _ => [level * stream.range(0.6, 1.0), level, level * stream.range(0.35, 0.75)],
    }
}

fn lacquer(stream: &mut Stream) -> Color {
    if stream.chance(0.65) {
        grey(stream, 0.05, 0.9, 0.06)
    } else {
        let brightness = stream.range(0.2, 0.7);
        paint(stream, brightness, 0.9)
    }
}

/// Red, yellow, blue or green paint, as signs have it.
fn vivid(stream: &mut Stream, brightness: f32) -> Color {
    let low = brightness * stream.range(0.05, 0.25);
    match stream.below(4) {
        0 => [brightness, low, low],
        1 => [brightness, brightness * 0.8, low],
        2 => [low, brightness * 0.4, brightness],
        _ => [low, brightness * 0.7, brightness * 0.3],
    }
}

/// A saturated colour of any hue.
fn dyed(stream: &mut Stream, brightness: f32) -> Color {
    let color = paint(stream, brightness, 1.0);
    let lowest = color[0].min(color[1]).min(color[2]);
    color.map(|channel| if channel > lowest { channel } else { 0.1 * brightness })
}

fn person(stream: &mut Stream) -> Thing {
    let cloth = |stream: &mut Stream| {
        let brightness = stream.range(0.5, 1.0);
        if stream.chance(0.3) { grey(stream, 0.02, 0.08, 0.15) } else { dyed(stream, brightness) }
    };
    let tan = stream.range(0.25, 0.75);
    let colors = [[tan, tan * 0.75, tan * 0.6], cloth(stream), cloth(stream)];
    let height = if stream.chance(0.15) { stream.range(1.1, 1.4) } else { stream.range(1.55, 1.95) };
    Thing::Pedestrian { height, stride: stream.range(0.05, 0.3), colors, bag: stream.chance(0.3) }
}

/// Paints shapes given in metres on a plane at distance `z`.
struct Brush<'a> {
    canvas: &'a mut Canvas,
    street: &'a Street,
    z: f32,
    object: u16,
}

impl Brush<'_> {
    /// Calls `color` at every pixel of a box around (`x`, `low..high`), with lateral offset and height in metres; paints
    /// where it answers. Boxes narrower than a pixel are drawn one pixel wide, as a camera would smear them.
    fn fill(&mut self, x: (f32, f32), y: (f32, f32), class: u8, mut color: impl FnMut(f32, f32) -> Option<Color>) {
        let scale = self.street.scale(self.z);
        let (left, right) = (self.street.column(x.0, self.z), self.street.column(x.1, self.z));
        let (top, bottom) = (self.street.row(y.1, self.z), self.street.row(y.0, self.z));
        let (left, right) = widened(left, right);
        let (top, bottom) = widened(top, bottom);
        for row in rows(top, bottom, self.canvas.height) {
            // Clamped into the box, so that a widened line still meets its shape.
            let up = (y.1 - (row as f32 + 0.5 - top) / scale).clamp(y.0, y.1);
            for column in rows(left, right, self.canvas.width) {
                let across = (x.0 + (column as f32 + 0.5 - left) / scale).clamp(x.0, x.1);
                if let Some(color) = color(across, up) {
                    self.put(column, row, color, self.z, class);
                }
            }
        }
    }

    fn put(&mut self, column: usize, row: usize, color: Color, z: f32, class: u8) {
        let pixel = row * self.canvas.width + column;
        self.canvas.color[pixel] = hazed(self.street, color, z);
        self.canvas.class[pixel] = class;
        self.canvas.object[pixel] = self.object;
    }

    /// Darkens the ground under an object; labels stay.
    fn shadow(&mut self, x: f32, half_width: f32, depth: f32) {
        let (near, far) = ((self.z - depth).max(1.0), self.z + depth);
        let (top, bottom) = (self.street.row(0.0, far), self.street.row(0.0, near));
        for row in rows(top, bottom, self.canvas.height) {
            let z = self.street.focal * super::layout::CAMERA / (row as f32 + 0.5 - self.street.vanishing.1).max(0.5);
            let (left, right) = (self.street.column(x - half_width, z), self.street.column(x + half_width, z));
            for column in rows(left, right, self.canvas.width) {
                let pixel = row * self.canvas.width + column;
                if self.canvas.object[pixel] == 0 {
                    self.canvas.color[pixel] = shade(self.canvas.color[pixel], 0.6);
                }
            }
        }
    }

    /// Brightness of the side of the street on which `x` lies.
    fn lit(&self, x: f32) -> f32 {
        let [left, right] = self.street.light.sides;
        0.5 + 0.5 * if x < 0.0 { left } else { right }
    }
}

fn widened(low: f32, high: f32) -> (f32, f32) {
    if high - low >= 1.0 {
        return (low, high);
    }
    let start = (0.5 * (low + high)).floor();
    (start, start + 1.0)
}

/// Pixels whose centre lies in `low..high`.
fn rows(low: f32, high: f32, limit: usize) -> std::ops::Range<usize> {
    let pixel = |edge: f32| ((edge - 0.5).ceil().max(0.0) as usize).min(limit);
    pixel(low)..pixel(high).max(pixel(low))
}

fn tree(brush: &mut Brush, placed: &Placed, trunk: f32, crown: f32, color: Color) {
    let light = brush.lit(placed.x);
    let bark = shade([0.28, 0.2, 0.14], light);
    brush.shadow(placed.x, crown * 0.8, crown * 0.5);
    brush.fill((placed.x - 0.13, placed.x + 0.13), (0.0, trunk + crown * 0.5), TREE, |_, up| {
        Some(shade(bark, 0.8 + 0.4 * noise(up * 3.0, 0.0, placed.seed)))
    });
    let middle = trunk + crown * 0.85;
    let reach = crown * 1.25;
    brush.fill((placed.x - reach, placed.x + reach), (middle - reach, middle + reach), TREE, |across, up| {
        let (dx, dy) = ((across - placed.x) / crown, (up - middle) / crown);
        let lumps = noise(dx * 2.2 + 9.0, dy * 2.2 + 9.0, placed.seed) - 0.5;
        let ragged = noise(across * 3.5, up * 3.5, placed.seed ^ 5) - 0.5;
        if dx * dx + dy * dy > 1.0 + 1.1 * lumps + 0.7 * ragged {
            return None;
        }
        let leaf = noise(across * 6.0, up * 6.0, placed.seed ^ 6) - 0.5;
        Some(shade(color, light * (0.95 + 0.35 * dy + 0.6 * lumps + 0.7 * leaf)))
    });
}

fn pole(brush: &mut Brush, placed: &Placed, height: f32, thickness: f32, arm: f32, color: Color) {
    let color = shade(color, brush.lit(placed.x));
    let half = 0.5 * thickness;
    brush.fill((placed.x - half, placed.x + half), (0.0, height), POLE, |across, _| {
        Some(shade(color, 1.0 + 0.5 * (across - placed.x) / thickness))
    });
    if arm != 0.0 {
        let (left, right) = (placed.x.min(placed.x + arm), placed.x.max(placed.x + arm));
        brush.fill((left, right), (height - 0.12, height), POLE, |_, _| Some(color));
    }
}

fn sign(brush: &mut Brush, placed: &Placed, (height, size): (f32, f32), shape: usize, colors: [Color; 2], post: bool) {
    let light = brush.lit(placed.x);
    if post {
        pole(brush, placed, height, 0.1, 0.0, [0.4, 0.4, 0.42]);
    }
    let half = 0.5 * size;
    let (half_x, half_y) = if shape == 3 { (half * 0.45, half) } else { (half, half) };
    let (x, y) = ((placed.x - half_x, placed.x + half_x), (height - half_y, height + half_y));
    brush.fill(x, y, SIGN, |across, up| {
        let (dx, dy) = ((across - placed.x) / half_x, (up - height) / half_y);
        let rim = match shape {
            0 => dx * dx + dy * dy,
            1 => (0.5 - 0.5 * dy + 1e-3).max(dx.abs() + 0.5 + 0.5 * dy).max(-dy),
            _ => dx.abs().max(dy.abs()),
        };
        if rim > 1.0 {
            return None;
        }
        if shape == 3 {
            // A traffic light: a dark box with one lamp lit.
            let lamp = (placed.seed % 3) as f32 - 1.0;
            let lit = dx * dx + (dy - 0.6 * lamp) * (dy - 0.6 * lamp) * 4.0 < 0.35;
            let lamps: [Color; 3] = [[0.1, 0.9, 0.4], [1.0, 0.7, 0.1], [1.0, 0.15, 0.1]];
            return Some(if lit { lamps[(placed.seed % 3) as usize] } else { [0.07, 0.07, 0.07] });
        }
        let inner = if lattice((dx * 3.0) as i32, (dy * 3.0) as i32, placed.seed) < 0.3 { 0 } else { 1 };
        Some(shade(colors[if rim > 0.7 { 0 } else { inner }], light))
    });
}

/// Height of a car's roof line at `u` from its rear (0) to its front (1).
fn roof(u: f32) -> f32 {
    let steps: [(f32, f32); 6] = [(0.0, 0.9), (0.1, 0.98), (0.25, 1.45), (0.55, 1.45), (0.74, 0.95), (1.0, 0.72)];
    for pair in steps.windows(2) {
        let ((a, low), (b, high)) = (pair[0], pair[1]);
        if u <= b {
            return low + (high - low) * (u - a) / (b - a);
        }
    }
    0.72
}

fn car(brush: &mut Brush, placed: &Placed, length: f32, facing: bool, color: Color) {
    const HALF_WIDTH: f32 = 0.88;
    let near = (placed.z - 0.5 * length).max(1.5);
    let far = near + length;
    let light = brush.lit(placed.x);
    brush.z = placed.z;
    brush.shadow(placed.x, HALF_WIDTH * 1.15, 0.55 * length);
    // The flank that the camera sees, unless the car is straight ahead.
    let flank = if placed.x > HALF_WIDTH {
        Some(placed.x - HALF_WIDTH)
    } else if placed.x < -HALF_WIDTH {
        Some(placed.x + HALF_WIDTH)
    } else {
        None
    };
    if let Some(x) = flank {
        let (a, b) = (brush.street.column(x, near), brush.street.column(x, far));
        for column in rows(a.min(b), a.max(b), brush.canvas.width) {
            let offset = column as f32 + 0.5 - brush.street.vanishing.0;
            let z = (brush.street.focal * x / offset).clamp(near, far);
            let u = if facing { (far - z) / length } else { (z - near) / length };
            let (top, bottom) = (brush.street.row(roof(u), z), brush.street.row(0.05, z));
            for row in rows(top, bottom, brush.canvas.height) {
                let up = roof(u) - (row as f32 + 0.5 - top) / brush.street.scale(z);
                let pixel = side_color(brush.street, color, u, up, length);
                if let Some(pixel) = pixel {
                    brush.put(column, row, shade(pixel, light * 0.85), z, CAR);
                }
            }
        }
    }
    brush.z = near;
    let sky = brush.street.light.skyline;
    brush.fill((placed.x - HALF_WIDTH, placed.x + HALF_WIDTH), (0.05, 1.45), CAR, |across, up| {
        let dx = (across - placed.x).abs() / HALF_WIDTH;
        let cabin = 1.0 - (up - 0.95).max(0.0) * 0.5;
        if dx > cabin || (up < 0.25 && dx < 0.6) {
            return None;
        }
        let pixel = if up > 1.0 && up < 1.36 && dx < cabin - 0.14 {
            blend([0.06, 0.07, 0.08], sky, 0.35 * (up - 1.0) / 0.36)
        } else if up < 0.3 {
            [0.05, 0.05, 0.05]
        } else if (0.6..0.85).contains(&up) && dx > 0.68 {
            if facing { [0.85, 0.85, 0.8] } else { [0.6, 0.06, 0.05] }
        } else if (0.45..0.62).contains(&up) && dx < 0.28 {
            [0.75, 0.75, 0.7]
        } else {
            shade(color, 0.75 + 0.35 * up)
        };
        Some(shade(pixel, light))
    });
}

fn side_color(street: &Street, color: Color, u: f32, up: f32, length: f32) -> Option<Color> {
    for axle in [0.18, 0.8] {
        let (dx, dy) = ((u - axle) * length, up - 0.32);
        let distance = dx * dx + dy * dy;
        if distance < 0.32 * 0.32 {
            return Some(if distance < 0.16 * 0.16 { [0.4, 0.4, 0.4] } else { [0.04, 0.04, 0.04] });
        }
    }
    if up < 0.22 {
        return None;
    }
    let window = up > 0.95 && up < roof(u) - 0.08 && (0.14..0.72).contains(&u) && (u - 0.42).abs() > 0.015;
    Some(if window {
        blend([0.06, 0.07, 0.08], street.light.skyline, 0.3 * (up - 0.95))
    } else {
        shade(color, 0.7 + 0.35 * up)
    })
}

fn pedestrian(brush: &mut Brush, placed: &Placed, height: f32, stride: f32, colors: [Color; 3], bag: bool) {
    let light = brush.lit(placed.x);
    let [skin, upper, lower] = colors.map(|color| shade(color, light));
    let bag_side = if placed.seed & 1 == 0 { 1.0 } else { -1.0 };
    brush.shadow(placed.x, 0.3, 0.3);
    let reach = 0.42;
    brush.fill((placed.x - reach, placed.x + reach), (0.0, height), PEDESTRIAN, |across, up| {
        let (x, y) = (across - placed.x, up / height);
        if y > 0.86 {
            let (dx, dy) = (x / 0.12, (y - 0.93) * height / 0.13);
            let head = dx * dx + dy * dy < 1.0;
            let hair = dy > 0.35 || (placed.seed & 2 == 0 && dy > -0.1);
            return head.then_some(if hair { shade(skin, 0.3) } else { skin });
        }
        if bag && (0.4..0.58).contains(&y) && (0.2..0.4).contains(&(x * bag_side)) {
            return Some([0.2, 0.12, 0.1]);
        }
        if y > 0.47 {
            let shoulder = 0.25 - 0.05 * (0.86 - y) * height;
            let grain = 0.85 + 0.3 * noise(x * 12.0, up * 8.0, placed.seed);
            return (x.abs() < shoulder).then_some(shade(upper, grain));
        }
        let apart = stride * (1.0 - y / 0.47);
        let leg = (x.abs() - apart * 0.5 - 0.05).abs() < 0.11;
        leg.then_some(if y < 0.04 { [0.05, 0.05, 0.05] } else { lower })
    });
}
