"""The paper's findings and what they can bear: published numbers, factors, regression, figures."""
