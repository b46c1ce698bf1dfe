"""PoseDA: a lifter meets other cameras and other people (Chai et al., ICCV 2023).

`alignment` moves source poses to where the target's 2D poses lie, `generators` change their angles, lengths and
orientation, `critics` say what is still a person, `losses` joins them. Poses are (N, 16, 3) joints of `h36m-16`,
metres, camera axes. Only a README and an abstract were released; where the text is silent, operators and numbers are
those of its parent PoseAug (Gong et al., CVPR 2021), and the docstrings say which choices are ours.
"""
