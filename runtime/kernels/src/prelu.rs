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
    if !broadcasts
        || elements(&p.shape) != Some(data.len())
        || elements(&p.alpha_shape) != Some(alpha.len())
    {
        return Err(KernelError::Shape);
    }
    let apply = |x: T, a: i8| {
        let x = x.into().wrapping_sub(p.input_zero_point);
        let scaled = if x >= 0 {
            p.positive.apply(x)
        } else {
            p.negative.apply(x.wrapping_mul(i32::from(a).wrapping_sub(p.alpha_zero_point)))
        };
        store(scaled.wrapping_add(p.output_zero_point))
    };
    let [batch, height, width, channels] = p.shape;
    let [batch_a, height_a, width_a, channels_a] = p.alpha_shape;
    if channels == 0 {
        return Ok(());
    }
    // An axis of alpha with extent 1 is not stepped along.
    let step = |index: usize, extent: usize| if extent == 1 { 0 } else { index };
    let mut rows = data.chunks_exact_mut(channels);
    for n in 0..batch {
        for y in 0..height {
            for x in 0..width {
                let alpha_row = (step(n, batch_a) * height_a + step(y, height_a)) * width_a + step(x, width_a);
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

/// The number of elements of a shape; none when it overflows.
fn elements(shape: &[usize; 4]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))
}
