"""Unrelated questions and passages in three languages: how far apart an encoder puts them shows its spread."""

from __future__ import annotations

QUESTIONS: dict[str, tuple[str, ...]] = {
    "en": (
        "When does the swimming pool open on Sundays?",
        "How long must bread dough rest before it is baked?",
        "Which planet has the largest number of moons?",
        "What must be done after a bee sting?",
        "Who pays for the repair of a broken washing machine?",
        "Why did the old harbour lose its importance?",
        "How many players are in a volleyball team?",
        "Where are the passwords of a customer stored?",
    ),
    "vi": (
        "Bể bơi mở cửa lúc mấy giờ vào Chủ nhật?",
        "Bột bánh mì phải nghỉ bao lâu trước khi nướng?",
        "Hành tinh nào có nhiều mặt trăng nhất?",
        "Phải làm gì sau khi bị ong đốt?",
        "Ai trả tiền sửa một chiếc máy giặt bị hỏng?",
        "Vì sao cảng cũ mất đi tầm quan trọng?",
        "Một đội bóng chuyền có bao nhiêu cầu thủ?",
        "Mật khẩu của khách hàng được lưu ở đâu?",
    ),
    "zh": (
        "游泳池星期天几点开门？",
        "面包面团在烘烤之前要静置多久？",
        "哪颗行星的卫星最多？",
        "被蜜蜂蜇了以后应该怎么办？",
        "洗衣机坏了，修理费由谁承担？",
        "旧港口为什么失去了重要性？",
        "一支排球队有多少名队员？",
        "客户的密码保存在哪里？",
    ),
}
"""Questions by language."""

PASSAGES: dict[str, tuple[str, ...]] = {
    "en": (
        "On Sundays and holidays the pool opens at nine and closes at six; children under six need an adult with them.",
        "Knead flour, water, salt and yeast for ten minutes, cover the dough and let it rise for two hours.",
        "Astronomers have confirmed more than a hundred moons around Saturn, most of them only a few kilometres wide.",
        "Remove the sting at once, cool the skin with ice, and call a doctor if the face begins to swell.",
        "The seller repairs a faulty appliance free of charge within two years of its purchase.",
        "When the river filled with sand in the fifteenth century, merchants moved their ships to the coast.",
        "Each side sends six people to the court, and a match is won by the first to take three sets.",
        "Only a salted hash of the secret is kept in the database; the text that was typed is never written down.",
    ),
    "vi": (
        "Chủ nhật và ngày lễ, bể mở cửa lúc chín giờ, đóng cửa lúc sáu giờ; trẻ dưới sáu tuổi phải đi cùng người lớn.",
        "Nhào bột mì, nước, muối và men trong mười phút, đậy khối bột lại và để nở trong hai giờ.",
        "Các nhà thiên văn đã xác nhận hơn một trăm vệ tinh của Sao Thổ, phần lớn chỉ rộng vài ki-lô-mét.",
        "Lấy ngòi ra ngay, chườm đá lên da và gọi bác sĩ nếu khuôn mặt bắt đầu sưng.",
        "Người bán sửa miễn phí thiết bị bị lỗi trong vòng hai năm kể từ ngày mua.",
        "Khi dòng sông bị cát bồi vào thế kỷ mười lăm, các thương nhân chuyển tàu của họ ra bờ biển.",
        "Mỗi bên đưa sáu người ra sân, và bên nào thắng ba hiệp trước thì thắng trận.",
        "Cơ sở dữ liệu chỉ giữ một giá trị băm có muối của bí mật; văn bản đã gõ không bao giờ được ghi lại.",
    ),
    "zh": (
        "星期天和节假日九点开门，六点关门；六岁以下儿童须由成人陪同。",
        "将面粉、水、盐和酵母揉十分钟，盖好面团，发酵两个小时。",
        "天文学家已经确认土星有一百多颗卫星，其中大多数只有几公里宽。",
        "立即拔出毒刺，用冰敷皮肤，如果脸部开始肿胀就去看医生。",
        "在购买后的两年之内，卖方免费修理有缺陷的电器。",
        "十五世纪河道淤塞以后，商人们把船只迁到了海边。",
        "每一方派六个人上场，先赢三局者获得比赛的胜利。",
        "数据库里只保留加盐的散列值，输入的文字从不写下来。",
    ),
}
"""Passages by language; the one at the same place answers the question."""
