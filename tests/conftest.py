"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# The examples of a test are always the same: what one change passes, the next does not fail by chance. Others
# are drawn by pytest --hypothesis-profile=random. That an example takes long on a busy machine is no defect.
settings.register_profile(
    "limner", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("random", settings.get_profile("limner"), derandomize=False)
settings.load_profile("limner")
