from hy_plugins import Plugins
from hyvideo_sample import plugin
from hyvideo_sample.cli import main


def test_the_command_is_offered():
    plugins = Plugins(discover=False)
    plugins.register(plugin, name="sample")
    assert plugins.load("command", "sample") is main
