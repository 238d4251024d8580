from .scikit_learn import FlowClassifier as FlowClassifier
from .scikit_learn import FlowDensity as FlowDensity
from .scikit_learn import FlowRegressor as FlowRegressor
