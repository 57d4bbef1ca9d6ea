//! Integer PReLU: `x` where it is not negative, `alpha * x` elsewhere.

use crate::KernelError;
use crate::fixed::Multiplier;

/// Parameters of PReLU.
///
/// For uint8 models all three tensors are seen as int8: values and zero points lowered by 128.
#[derive(Clone, Debug)]
pub struct Prelu {
    /// Shape of input and output, with leading ones.
    pub shape: [usize; 4],
    /// Shape of alpha: each extent equals that of `shape` or is 1 and then holds for the whole axis.
    pub alpha_shape: [usize; 4],
    /// Zero point of the input.
    pub input_zero_point: i32,
    /// Zero point of alpha.
    pub alpha_zero_point: i32,
    /// Zero point of the output.
    pub output_zero_point: i32,
    /// Input scale / output scale.
    pub positive: Multiplier,
    /// Input scale * alpha scale / output scale.
    pub negative: Multiplier,
}

/// PReLU on int8 in place. `data` has `shape`, `alpha` has `alpha_shape`.
///
/// # Errors
/// [`KernelError::Shape`] when a length is wrong or the shapes do not broadcast; [`KernelError::Parameter`] when an
/// exponent is out of range.
pub fn prelu_i8(p: &Prelu, alpha: &[i8], data: &mut [i8]) -> Result<(), KernelError> {
    prelu(p, alpha, data, |y| y.clamp(-128, 127) as i8)
}

/// PReLU on int16 with int8 alpha, in place. `data` has `shape`, `alpha` has `alpha_shape`.
///
/// # Errors
/// [`KernelError::Shape`] when a length is wrong or the shapes do not broadcast; [`KernelError::Parameter`] when an
/// exponent is out of range.
pub fn prelu_i16(p: &Prelu, alpha: &[i8], data: &mut [i16]) -> Result<(), KernelError> {
    prelu(p, alpha, data, |y| y.clamp(-32768, 32767) as i16)
}

fn prelu<T: Copy + Into<i32>>(
    p: &Prelu,
    alpha: &[i8],
    data: &mut [T],
    store: impl Fn(i32) -> T,
) -> Result<(), KernelError> {
    p.positive.check()?;
    p.negative.check()?;
    let broadcasts = p.shape.iter().zip(&p.alpha_shape).all(|(&n, &a)| a == n || a == 1);
    if !broadcasts || elements(&p.shape) != Some(data.len()) || elements(&p.alpha_shape) != Some(alpha.len())
    {
        return Err(KernelError::Shape);
    }
    let apply = |x: T, a: i8| store(rescale(p, x.into(), a));
    let [batch, height, width, channels] = p.shape;
    let [batch_a, height_a, width_a, channels_a] = p.alpha_shape;
    if data.is_empty() || channels == 0 {
        return Ok(());
    }
    // An axis of alpha with extent 1 is not stepped along.
    let step = |index: usize, extent: usize| if extent == 1 { 0 } else { index };
    let mut rows = data.chunks_exact_mut(channels);
    for n in 0..batch {
        for y in 0..height {
            for x in 0..width {
                let alpha_row =
                    (step(n, batch_a) * height_a + step(y, height_a)) * width_a + step(x, width_a);
                let alphas = alpha.get(alpha_row * channels_a..).unwrap_or_default();
                let Some(row) = rows.next() else { return Ok(()) };
                match alphas.first() {
                    Some(&a) if channels_a == 1 => row.iter_mut().for_each(|x| *x = apply(*x, a)),
                    _ => row.iter_mut().zip(alphas).for_each(|(x, &a)| *x = apply(*x, a)),
                }
            }
        }
    }
    Ok(())
}

/// One element, before it is saturated. Not inlined: there are several loops around it.
#[inline(never)]
fn rescale(p: &Prelu, x: i32, alpha: i8) -> i32 {
    let x = x.wrapping_sub(p.input_zero_point);
    let scaled = if x >= 0 {
        p.positive.apply(x)
    } else {
        p.negative.apply(x.wrapping_mul(i32::from(alpha).wrapping_sub(p.alpha_zero_point)))
    };
    scaled.wrapping_add(p.output_zero_point)
}

/// The number of elements of a shape; none when it overflows.
fn elements(shape: &[usize; 4]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scales 0.05 (input), 0.01 (alpha), 0.06 (output).
    fn params(zero_points: [i32; 3], alpha_shape: [usize; 4]) -> Prelu {
        let [input_zero_point, alpha_zero_point, output_zero_point] = zero_points;
        Prelu {
            shape: [1, 2, 2, 3],
            alpha_shape,
            input_zero_point,
            alpha_zero_point,
            output_zero_point,
            positive: Multiplier { multiplier: 1_789_569_773, shift: 0 },
            negative: Multiplier { multiplier: 1_145_324_629, shift: -6 },
        }
    }

    const INPUT: [i8; 12] = [-128, -60, -7, 3, 4, 127, -20, 40, -90, 2, 3, 4];

    #[test]
    fn equals_the_reference() {
        // TensorFlow Lite Micro (tflite_micro 0.dev20261023).
        let mut data = INPUT;
        prelu_i8(&params([4, -10, -20], [1, 1, 1, 3]), &[-50, 10, 90], &mut data).unwrap();
        assert_eq!(data, [24, -31, -29, -20, -20, 83, -12, 10, -98, -19, -20, -20]);
        let mut data = INPUT.map(|x| i16::from(x) * 200);
        prelu_i16(&params([0, -10, 0], [1, 1, 2, 1]), &[-50, 10], &mut data).unwrap();
        assert_eq!(data, [8533, 4000, 467, 500, 667, 21167, 1333, 6667, 6000, 333, 500, 667]);
    }

    #[test]
    fn every_axis_broadcasts() {
        let full: [i8; 12] = core::array::from_fn(|i| (i as i16 * 20 - 110) as i8);
        for mask in 0..16usize {
            let shape = [1, 2, 2, 3];
            let alpha_shape: [usize; 4] =
                core::array::from_fn(|axis| if mask >> axis & 1 == 1 { shape[axis] } else { 1 });
            // Alpha spelled out for every element, from the corner of `full` that has its shape.
            let len = alpha_shape.iter().product();
            let mut spelled = [0; 12];
            for (index, value) in spelled.iter_mut().enumerate() {
                let at = [index / 12, index / 6 % 2, index / 3 % 2, index % 3];
                let position = at.iter().zip(&alpha_shape).fold(0, |p, (&i, &n)| p * n + i.min(n - 1));
                *value = full[position];
            }
            let (mut short, mut long) = (INPUT, INPUT);
            prelu_i8(&params([4, -10, -20], alpha_shape), &full[..len], &mut short).unwrap();
            prelu_i8(&params([4, -10, -20], shape), &spelled, &mut long).unwrap();
            assert_eq!(short, long, "{alpha_shape:?}");
        }
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let p = params([0; 3], [1, 1, 1, 3]);
        assert_eq!(prelu_i8(&p, &[0; 2], &mut [0; 12]), Err(KernelError::Shape));
        assert_eq!(prelu_i8(&p, &[0; 3], &mut [0; 11]), Err(KernelError::Shape));
        assert_eq!(prelu_i8(&params([0; 3], [1, 1, 1, 2]), &[0; 2], &mut [0; 12]), Err(KernelError::Shape));
        let huge = Prelu { shape: [usize::MAX; 4], alpha_shape: [1; 4], ..p.clone() };
        assert_eq!(prelu_i8(&huge, &[0], &mut [0; 12]), Err(KernelError::Shape));
        let empty = Prelu { shape: [usize::MAX, 1, 0, 1], alpha_shape: [1; 4], ..p.clone() };
        assert_eq!(prelu_i8(&empty, &[0], &mut []), Ok(()));
        let far = Prelu { positive: Multiplier { multiplier: 0, shift: 32 }, ..p };
        assert_eq!(prelu_i8(&far, &[0; 3], &mut [0; 12]), Err(KernelError::Parameter));
    }

    #[test]
    fn hostile_zero_points_do_not_panic() {
        for zero_point in [i32::MIN, i32::MAX] {
            prelu_i8(&params([zero_point; 3], [1; 4]), &[-128], &mut INPUT.clone()).unwrap();
        }
    }
}
