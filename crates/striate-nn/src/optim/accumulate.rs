use striate_graph::{Array, Parameter, Tensor, Trace, UpdateKind};

/// Gradients of several batches, added up in cells before one step: a large batch in little memory.
///
/// Two graphs: in the one for all batches but the last, [`GradAccumulator::record_add`]; in the one for the last,
/// [`GradAccumulator::record_take`] gives the means for [`super::Optimizer::record`] and empties the cells.
pub struct GradAccumulator {
    cells: Vec<(Parameter, Parameter)>,
}

impl GradAccumulator {
    /// Cells `<parameter>.grad` for these parameters.
    pub fn new(parameters: &[Parameter]) -> GradAccumulator {
        let cell = |p: &Parameter| {
            let sum = Parameter::buffer(Array::zeros(p.shape(), p.dtype()));
            sum.set_name(&format!("{}.grad", p.name()));
            (p.clone(), sum)
        };
        GradAccumulator { cells: parameters.iter().map(cell).collect() }
    }

    /// The cells by name.
    pub fn cells(&self) -> Vec<(String, Parameter)> {
        self.cells.iter().map(|(_, sum)| (sum.name().to_string(), sum.clone())).collect()
    }

    fn sum_of(&self, parameter: &Parameter) -> Option<&Parameter> {
        self.cells.iter().find(|(p, _)| p.same_cell(parameter)).map(|(_, sum)| sum)
    }

    /// Records: add these gradients to the cells.
    #[track_caller]
    pub fn record_add(&self, trace: &Trace, gradients: &[(Parameter, Tensor)]) {
        for (parameter, gradient) in gradients {
            if let Some(sum) = self.sum_of(parameter) {
                trace.update_plain(sum, UpdateKind::Accumulate, gradient);
            }
        }
    }

    /// Records: the mean of the cells and these gradients over `batches` batches; the cells become 0.
    #[track_caller]
    pub fn record_take(
        &self,
        trace: &Trace,
        gradients: &[(Parameter, Tensor)],
        batches: usize,
    ) -> Vec<(Parameter, Tensor)> {
        let mean = |(parameter, gradient): &(Parameter, Tensor)| {
            let Some(sum) = self.sum_of(parameter) else { return (parameter.clone(), gradient.clone()) };
            let total = trace.parameter(sum) + gradient;
            trace.update_plain(sum, UpdateKind::Assign, &gradient.full_like(0.0));
            (parameter.clone(), total * (1.0 / batches.max(1) as f32))
        };
        gradients.iter().map(mean).collect()
    }
}
