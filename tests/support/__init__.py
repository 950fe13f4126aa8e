"""What tests share: builders of images, servers on live ports, and the look-up of real tools."""
